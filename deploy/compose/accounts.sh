# Sourced once by the mariadb image on a new database, which has made the database `app`: the application's account, and the
# proxy's own, which needs no rights.
docker_process_sql <<SQL
CREATE USER app@'%' IDENTIFIED BY '$(docker_sql_escape_string_literal "$APP_PASSWORD")';
GRANT ALL ON app.* TO app@'%';
CREATE USER sluicegate_monitor@'%' IDENTIFIED BY '$(docker_sql_escape_string_literal "$MONITOR_PASSWORD")';
SQL
