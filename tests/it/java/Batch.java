// Batches by MariaDB's driver, which sends each in one command where the server takes that. Argument: the URL.

import java.sql.Connection;
import java.sql.DriverManager;
import java.sql.PreparedStatement;
import java.sql.ResultSet;
import java.sql.Statement;
import java.sql.Types;
import java.util.Arrays;

public class Batch {
    public static void main(String[] arguments) throws Exception {
        try (Connection db = DriverManager.getConnection(arguments[0]); Statement plain = db.createStatement()) {
            plain.execute("DROP TABLE IF EXISTS batch");
            plain.execute("CREATE TABLE batch (i INT PRIMARY KEY, v TEXT)");
            for (boolean commits : new boolean[] {true, false}) {
                db.setAutoCommit(commits);
                try (PreparedStatement insert = db.prepareStatement("INSERT INTO batch VALUES (?, ?)")) {
                    for (int round = 0; round < 3; round++) {
                        for (int i = 0; i < 500; i++) {
                            insert.setInt(1, i + round * 1000 + (commits ? 0 : 10000));
                            if (i % 7 == 0) insert.setNull(2, Types.VARCHAR); else insert.setString(2, "value " + i);
                            insert.addBatch();
                        }
                        int[] counts = insert.executeBatch();
                        System.out.println(counts.length + " " + Arrays.stream(counts).distinct().boxed().toList());
                    }
                }
                try (PreparedStatement update = db.prepareStatement("UPDATE batch SET v = CONCAT(v, ?) WHERE i = ?")) {
                    for (int i = 0; i < 100; i++) {
                        update.setString(1, "ä".repeat(i));
                        update.setInt(2, i);
                        update.addBatch();
                    }
                    System.out.println(update.executeBatch().length);
                }
                if (!commits) db.commit();
                try (ResultSet sums = plain.executeQuery("SELECT COUNT(*), COUNT(v), SUM(LENGTH(v)), MD5(GROUP_CONCAT(v)) FROM batch")) {
                    sums.next();
                    System.out.println(sums.getInt(1) + " " + sums.getInt(2) + " " + sums.getLong(3) + " " + sums.getString(4));
                }
            }
        }
    }
}
