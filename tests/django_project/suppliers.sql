CREATE TABLE supplier (name text PRIMARY KEY);
INSERT INTO supplier VALUES ('Medlar & Sons');
