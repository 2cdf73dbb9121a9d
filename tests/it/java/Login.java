// Logs in by JDBC with a password or token and asks who it is: often enough that the driver prepares the statement on the
// server. Run as a single source file: java -cp postgresql.jar Login.java URL USER PASSWORD

import java.sql.Connection;
import java.sql.DriverManager;
import java.sql.PreparedStatement;
import java.sql.ResultSet;
import java.sql.SQLException;

class Login {
    public static void main(String[] arguments) throws SQLException {
        try (Connection connection = DriverManager.getConnection(arguments[0], arguments[1], arguments[2]);
                PreparedStatement statement = connection.prepareStatement("SELECT current_user, ?::int")) {
            for (int number = 0; number < 20; number++) {
                statement.setInt(1, number);
                try (ResultSet row = statement.executeQuery()) {
                    row.next();
                    if (row.getInt(2) != number) {
                        throw new SQLException("got " + row.getInt(2) + " for " + number);
                    }
                    if (number == 19) {
                        System.out.println(row.getString(1));
                    }
                }
            }
        } catch (SQLException refused) {
            System.out.println(refused.getSQLState() + " " + refused.getMessage());
        }
    }
}
