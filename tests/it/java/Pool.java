// HikariCP's pool of one connection, for tests/it/drivers/pools.rs. Reads a command a line, and answers each with a line,
// `ok PID VALUE` or `error PID SQLSTATE MESSAGE`; the process id is that of the physical connection.
//
//   java Pool URL USER PASSWORD
//
//   ask SQL           borrows, runs one statement, gives back
//   transaction SQL   borrows, runs the statement in one transaction until it fails, rolls back, gives back

import com.zaxxer.hikari.HikariConfig;
import com.zaxxer.hikari.HikariDataSource;
import java.io.BufferedReader;
import java.io.InputStreamReader;
import java.sql.Connection;
import java.sql.ResultSet;
import java.sql.SQLException;
import java.sql.Statement;
import org.postgresql.PGConnection;

class Pool {
    static final int TIMES_MAX = 1000;

    public static void main(String[] arguments) throws Exception {
        HikariConfig config = new HikariConfig();
        config.setJdbcUrl(arguments[0]);
        config.setUsername(arguments[1]);
        config.setPassword(arguments[2]);
        config.setMaximumPoolSize(1);
        try (HikariDataSource pool = new HikariDataSource(config);
                BufferedReader commands = new BufferedReader(new InputStreamReader(System.in))) {
            for (String line = commands.readLine(); line != null; line = commands.readLine()) {
                String[] words = line.split(" ", 2);
                try (Connection connection = pool.getConnection()) {
                    int pid = connection.unwrap(PGConnection.class).getBackendPID();
                    System.out.println(answer(connection, pid, words[1], words[0].equals("transaction")));
                } catch (SQLException error) {
                    System.out.println("error 0 " + error.getSQLState() + " " + error.getMessage().replace('\n', ' '));
                }
            }
        }
    }

    static String answer(Connection connection, int pid, String sql, boolean inTransaction) throws SQLException {
        try {
            connection.setAutoCommit(!inTransaction);
            String value = null;
            for (int times = 0; times < (inTransaction ? TIMES_MAX : 1); times++) {
                try (Statement statement = connection.createStatement(); ResultSet row = statement.executeQuery(sql)) {
                    row.next();
                    value = row.getString(1);
                }
            }
            return "ok " + pid + " " + value;
        } catch (SQLException error) {
            if (inTransaction) {
                connection.rollback();
            }
            return "error " + pid + " " + error.getSQLState() + " " + error.getMessage().replace('\n', ' ');
        }
    }
}
