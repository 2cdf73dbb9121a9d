// The program of Program.java by MariaDB Connector/J, in MySQL's words. `queryTimeout` in the variant stops what takes too long, which
// cancel() does otherwise.

import java.math.BigDecimal;
import java.math.BigInteger;
import java.security.GeneralSecurityException;
import java.sql.ResultSet;
import java.sql.SQLException;
import java.sql.Statement;
import java.sql.Timestamp;
import java.time.LocalDate;
import java.time.LocalDateTime;
import java.util.ArrayList;
import java.util.HexFormat;
import java.util.List;
import java.util.concurrent.ScheduledExecutorService;
import java.util.concurrent.ScheduledFuture;
import java.util.concurrent.TimeUnit;

class MyProgram extends Program {
    static boolean byTimeout;

    public static void main(String[] arguments) throws Exception {
        System.out.println("version mariadb " + org.mariadb.jdbc.internal.util.constant.Version.version);
        byTimeout = arguments[8].contains("query timeout");
        arguments[8] = "allowPublicKeyRetrieval=true&" + arguments[8].replace(" and query timeout", "");
        run("mariadb", arguments, MyProgram::new);
    }

    MyProgram(int number) throws GeneralSecurityException {
        super(number);
    }

    @Override
    void ofAType(String kind, String text) throws SQLException {
        String bare = kind.split("[(]")[0];
        boolean bytes = bare.equals("BLOB") || bare.equals("VARBINARY");
        change("REPLACE INTO kinds (id, `" + kind + "`) VALUES (?, ?), (?, " + (bytes ? "UNHEX(?)" : "?") + ")",
                base, given(bare, text), base + 1, text);
        String quoted = bytes ? "X'" + text + "'" : "'" + text.replace("\\", "\\\\").replace("'", "''") + "'";
        try (Statement statement = connection.createStatement()) {
            statement.execute("REPLACE INTO kinds (id, `" + kind + "`) VALUES (" + (base + 2) + ", " + quoted + ")");
        }
        String shown = bytes ? "HEX(`" + kind + "`)" : "CAST(`" + kind + "` AS CHAR)";
        List<String> values = new ArrayList<>(List.of(kind));
        try (var statement = connection.prepareStatement(
                "SELECT `" + kind + "`, " + shown + " FROM kinds WHERE id BETWEEN ? AND ? ORDER BY id")) {
            set(statement, new Object[] {base, base + 2});
            try (ResultSet row = statement.executeQuery()) {
                while (row.next()) {
                    values.add(shown(bare, row));
                    if (values.size() == 2) {
                        values.add(row.getString(2));
                    }
                }
            }
        }
        say(String.join(" | ", values));
    }

    @Override
    void nullOfAType(String kind) throws SQLException {
        change("REPLACE INTO kinds (id, `" + kind + "`) VALUES (?, ?)", base, null);
        say(kind + " " + one("SELECT `" + kind + "` FROM kinds WHERE id = ?", row -> shown(kind.split("[(]")[0], row), base));
    }

    static Object given(String kind, String text) {
        return switch (kind) {
            case "TINYINT", "SMALLINT UNSIGNED", "INT", "YEAR" -> Integer.valueOf(text);
            case "BIGINT" -> Long.valueOf(text);
            case "BIGINT UNSIGNED" -> new BigInteger(text);
            case "FLOAT" -> Float.valueOf(text);
            case "DOUBLE" -> Double.valueOf(text);
            case "DECIMAL" -> new BigDecimal(text);
            case "VARBINARY", "BLOB" -> HexFormat.of().parseHex(text);
            case "DATETIME", "TIMESTAMP" -> Timestamp.valueOf(text);
            // A Date by the binary protocol MySQL does not understand, and a Time has no fraction.
            default -> text;
        };
    }

    static String shown(String kind, ResultSet row) throws SQLException {
        if (row.getObject(1) == null) {
            return "null";
        }
        return switch (kind) {
            case "FLOAT" -> HexFormat.of().toHexDigits(Float.floatToIntBits(row.getFloat(1)));
            case "DOUBLE" -> HexFormat.of().toHexDigits(Double.doubleToLongBits(row.getDouble(1)));
            case "DECIMAL" -> row.getBigDecimal(1).toPlainString();
            case "VARBINARY", "BLOB" -> hex(row.getBytes(1));
            case "DATE" -> row.getObject(1, LocalDate.class).toString();
            // A LocalTime of midnight is null by the binary protocol.
            case "TIME" -> row.getString(1).contains(".") ? fraction(row.getString(1)) : row.getString(1);
            case "DATETIME", "TIMESTAMP" -> moment(row.getObject(1, LocalDateTime.class));
            case "YEAR" -> String.valueOf(row.getShort(1));
            case "JSON" -> row.getString(1).replace(" ", "");
            default -> row.getString(1);
        };
    }

    @Override
    boolean stopped(String sql) throws Exception {
        if (!byTimeout) {
            return super.stopped(sql);
        }
        try (Statement statement = connection.createStatement()) {
            statement.setQueryTimeout(1);
            statement.execute(sql);
        } catch (SQLException error) {
            if (!isCancel(error)) {
                throw error;
            }
            return true;
        }
        return false;
    }

    // Once: it goes to the server whatever the statement does.
    @Override
    ScheduledFuture<?> cancelling(ScheduledExecutorService other, Runnable cancel) {
        return other.schedule(cancel, BEFORE_CANCEL_MS, TimeUnit.MILLISECONDS);
    }

    @Override
    boolean isCancel(SQLException error) {
        // Killed; killed by a timer; MariaDB's own limit.
        return error.getErrorCode() == 1317 || error.getErrorCode() == 1969
                || error instanceof java.sql.SQLTimeoutException;
    }

    @Override
    String code(SQLException error) {
        return String.valueOf(error.getErrorCode());
    }
}
