\set VERBOSITY verbose
\pset pager off
SELECT 1 AS tick \watch i=0.1 c=2
SELECT $1::int + $2::int AS sum \bind 1 2 \g
SELECT $1::text || v AS text FROM t WHERE id = $2 \parse s1
\bind_named s1 'and ' 1 \g
\bind_named s1 'or ' 2 \g
\close_prepared s1
\bind_named s1 'gone ' 1 \g
\startpipeline
SELECT 1 AS a \bind \sendpipeline
SELECT 2 AS b \bind \sendpipeline
\flushrequest
\getresults 1
INSERT INTO t VALUES ($1, $2) \bind 50 'fifty' \sendpipeline
\syncpipeline
SELECT 1 / $1::int AS c \bind 0 \sendpipeline
SELECT 3 AS skipped \bind \sendpipeline
\syncpipeline
SELECT 4 AS d \bind \sendpipeline
\endpipeline
SELECT v FROM t WHERE id = 50;
