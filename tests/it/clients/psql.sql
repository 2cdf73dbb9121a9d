\set VERBOSITY verbose
\set QUIET on
\pset pager off
SELECT 1 AS one, 'two' AS two;
SELECT 3 AS three \; SELECT 4 AS four;
\echo -- copy
\copy t FROM STDIN
1	one
2	two
3	\N
\.
\copy t (id, v) FROM PROGRAM 'seq 10 12 | sed "s/$/,x/"' WITH (FORMAT csv)
\copy t TO STDOUT
\copy (SELECT id FROM t WHERE id > 2 ORDER BY id) TO STDOUT WITH CSV HEADER
COPY t FROM STDIN;
20	twenty
\.
\echo -- a copy that fails
\copy t FROM STDIN
21	x
not a number	x
\.
SELECT count(*) FROM t;
\echo -- gset, gexec, gdesc, crosstabview
SELECT max(id) AS last, min(id) AS first FROM t \gset
SELECT :last - :first AS span;
SELECT format('SELECT %s AS n', id) FROM t WHERE id < 3 ORDER BY id \gexec
SELECT id, v, now() FROM t \gdesc
SELECT id % 2 AS odd, id % 3 AS rest, count(*) FROM t GROUP BY 1, 2 ORDER BY 1, 2 \crosstabview
\echo -- watch, ended by an error
UPDATE counter SET n = n + 1 RETURNING 1 / (2 - n) AS quotient \watch 0.1
\echo -- on_error_rollback
\set ON_ERROR_ROLLBACK on
BEGIN;
INSERT INTO t VALUES (30, 'kept');
INSERT INTO t VALUES (30, 'refused');
SELEC;
SELECT v FROM t WHERE id = 30;
COMMIT;
\set ON_ERROR_ROLLBACK off
BEGIN;
SELEC;
SELECT 1;
ROLLBACK;
\echo -- fetch_count
\set FETCH_COUNT 7
SELECT generate_series(1, 30) AS n;
BEGIN;
SELECT id FROM t ORDER BY id;
SELECT 1 / (id - 3) FROM t ORDER BY id;
ROLLBACK;
\unset FETCH_COUNT
\echo -- what it asks about the catalog
\d
\d t
\dt
\df f
\du app
\dn
\dx
\dT mood
\sf f
\z t
\l template1
\encoding
\dconfig work_mem
\echo -- what tab completion asks
SELECT pg_catalog.quote_ident(c.relname) FROM pg_catalog.pg_class c WHERE c.relkind IN ('r', 'S', 'v', 'm', 'f', 'p') AND substring(pg_catalog.quote_ident(c.relname),1,2)='co' AND pg_catalog.pg_table_is_visible(c.oid)
UNION
SELECT pg_catalog.quote_ident(n.nspname) || '.' FROM pg_catalog.pg_namespace n WHERE substring(pg_catalog.quote_ident(n.nspname) || '.',1,2)='co' AND (SELECT pg_catalog.count(*) FROM pg_catalog.pg_namespace WHERE substring(pg_catalog.quote_ident(nspname) || '.',1,2) = substring('co',1,pg_catalog.length(pg_catalog.quote_ident(nspname))+1)) > 1
LIMIT 1000;
SELECT name FROM (SELECT pg_catalog.lower(name) AS name FROM pg_catalog.pg_settings UNION ALL SELECT 'session authorization' UNION ALL SELECT 'all') ss WHERE substring(name,1,6)='work_m' LIMIT 1000;
SELECT pg_catalog.quote_ident(attname) FROM pg_catalog.pg_attribute a, pg_catalog.pg_class c WHERE c.oid = a.attrelid AND a.attnum > 0 AND NOT a.attisdropped AND substring(pg_catalog.quote_ident(attname),1,0)='' AND (pg_catalog.quote_ident(relname)='t') AND pg_catalog.pg_table_is_visible(c.oid) LIMIT 1000;
\echo -- autocommit off, single transactions
\set AUTOCOMMIT off
INSERT INTO t VALUES (40, 'gone');
ROLLBACK;
INSERT INTO t VALUES (41, 'there');
COMMIT;
\set AUTOCOMMIT on
SELECT id FROM t WHERE id >= 40;
\c
SELECT 'a new connection';
