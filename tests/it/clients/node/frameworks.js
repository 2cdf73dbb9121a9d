// What web frameworks of other languages say to MySQL and MariaDB as they connect, and how they run a statement: facts of their public
// sources, for a driver that is here.
'use strict'

const STRICT = 'ONLY_FULL_GROUP_BY,STRICT_TRANS_TABLES,NO_ZERO_IN_DATE,NO_ZERO_DATE,ERROR_FOR_DIVISION_BY_ZERO,NO_ENGINE_SUBSTITUTION'

// `flags`: what its driver asks for at the login. `setup`: each statement with how it comes, a query or prepared. `way`: how statements
// with parameters come; `once` prepares one, executes it and closes it. `begin`: how a transaction begins.
const frameworks = {
  // PDO, which allows several statements in a text, by prepared statements (`ATTR_EMULATE_PREPARES` off).
  'as Laravel': ({ database }) => ({
    flags: ['MULTI_STATEMENTS', '-FOUND_ROWS'],
    setup: [
      ['query', `use \`${database}\`;`],
      ['query', 'SET SESSION TRANSACTION ISOLATION LEVEL READ COMMITTED;'],
      ['query', `SET NAMES 'utf8mb4' COLLATE 'utf8mb4_unicode_ci', time_zone='+00:00', SESSION sql_mode='${STRICT}';`]
    ],
    way: 'once',
    begin: 'START TRANSACTION'
  }),
  // The same in older versions: each setting by a prepared statement of its own.
  'as older Laravel': ({ database }) => ({
    flags: ['MULTI_STATEMENTS', '-FOUND_ROWS'],
    setup: [
      ['query', `use \`${database}\`;`],
      ['once', 'SET SESSION TRANSACTION ISOLATION LEVEL READ COMMITTED'],
      ['once', "set names 'utf8mb4' collate 'utf8mb4_unicode_ci'"],
      ['once', 'set time_zone="+00:00"'],
      ['once', `set session sql_mode='${STRICT}'`]
    ],
    way: 'once',
    begin: 'START TRANSACTION'
  }),
  // ActiveRecord over Ruby's mysql2; it looks at its tables as it needs them.
  'as Rails': () => ({
    flags: [],
    setup: [
      ['query', 'SET NAMES utf8mb4 COLLATE utf8mb4_unicode_ci,  ' +
        "@@SESSION.sql_mode = CONCAT(CONCAT(@@sql_mode, ',STRICT_ALL_TABLES'), ',NO_AUTO_VALUE_ON_ZERO'),  " +
        '@@SESSION.sql_auto_is_null = 0, @@SESSION.wait_timeout = 2147483'],
      ['query', 'SHOW FULL FIELDS FROM `items`'],
      ['query', 'SELECT column_name FROM information_schema.statistics WHERE index_name = \'PRIMARY\'' +
        " AND table_schema = database() AND table_name = 'items' ORDER BY seq_in_index"]
    ],
    way: 'query',
    begin: 'BEGIN'
  }),
  // With `strict: false`.
  'as Rails, not strict': () => ({
    flags: [],
    setup: [
      ['query', 'SET NAMES utf8mb4,  @@SESSION.sql_mode = CONCAT(REPLACE(REPLACE(REPLACE(@@sql_mode, \'STRICT_TRANS_TABLES\', \'\'), ' +
        "'STRICT_ALL_TABLES', ''), 'TRADITIONAL', ''), ',NO_AUTO_VALUE_ON_ZERO'),  " +
        '@@SESSION.sql_auto_is_null = 0, @@SESSION.wait_timeout = 2147483']
    ],
    way: 'query',
    begin: 'BEGIN'
  })
}

module.exports = { frameworks }
