// The same work by MariaDB Connector/J: URL. Prints what came out, a line each.
import java.sql.*;

public class Small {
    public static void main(String[] args) throws Exception {
        try (Connection connection = DriverManager.getConnection(args[0])) {
            try (Statement statement = connection.createStatement()) {
                statement.execute("DROP TABLE IF EXISTS java_orders");
                statement.execute("CREATE TABLE java_orders (id INT AUTO_INCREMENT PRIMARY KEY, name VARCHAR(100), "
                    + "price DECIMAL(10,2)) CHARACTER SET utf8mb4");
            }
            connection.setAutoCommit(false);
            try (PreparedStatement insert = connection.prepareStatement(
                    "INSERT INTO java_orders (name, price) VALUES (?, ?)", Statement.RETURN_GENERATED_KEYS)) {
                for (int number = 0; number < 5; number++) {
                    insert.setString(1, "näme '" + number + "' 漢字");
                    insert.setInt(2, number);
                    System.out.println("rows " + insert.executeUpdate());
                    try (ResultSet keys = insert.getGeneratedKeys()) {
                        while (keys.next()) System.out.println("id " + keys.getLong(1));
                    }
                }
                for (int number = 0; number < 100; number++) {
                    insert.setString(1, "batch");
                    insert.setInt(2, number);
                    insert.addBatch();
                }
                System.out.println("batch " + insert.executeBatch().length);
            }
            connection.commit();
            try (PreparedStatement select = connection.prepareStatement(
                    "SELECT id, name, price FROM java_orders WHERE id < ? ORDER BY id")) {
                for (int bound : new int[] {3, 6, 3}) {
                    select.setInt(1, bound);
                    try (ResultSet rows = select.executeQuery()) {
                        while (rows.next()) System.out.println(rows.getInt(1) + " " + rows.getString(2) + " " + rows.getBigDecimal(3));
                    }
                }
            }
            try (Statement statement = connection.createStatement()) {
                statement.executeUpdate("DELETE FROM java_orders");
                connection.rollback();
                try (ResultSet rows = statement.executeQuery("SELECT COUNT(*) FROM java_orders")) {
                    rows.next();
                    System.out.println("count " + rows.getInt(1));
                }
                try {
                    statement.executeQuery("SELECT nonsense");
                } catch (SQLException error) {
                    System.out.println("error " + error.getErrorCode());
                }
            }
            connection.commit();
        }
    }
}
