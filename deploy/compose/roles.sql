-- Run once by the postgres image on a new database: the application's role and database, and the proxy's own account.
\set ON_ERROR_STOP on
\getenv app_password APP_PASSWORD
\getenv monitor_password MONITOR_PASSWORD

CREATE ROLE app LOGIN PASSWORD :'app_password';
CREATE DATABASE app OWNER app;

-- Reads roles, positions and limits; sees no table.
CREATE ROLE sluicegate_monitor LOGIN CONNECTION LIMIT 10 PASSWORD :'monitor_password';
GRANT pg_monitor TO sluicegate_monitor;
