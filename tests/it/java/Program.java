// The program that tests/it/drivers.rs describes, for pgjdbc. The variant is what the URL's parameters say.
//
//   java Program HOST PORT USER PASSWORD DATABASE FOLDER FIRST CLIENTS VARIANT
//
// FOLDER has the database's types and statements: types.tsv, statements.tsv.
//
// Prints what each client saw, a line each: `line CLIENT TEXT`, at its end `digest CLIENT SHA-256`, or `failed CLIENT WHY`.

import java.math.BigDecimal;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.security.GeneralSecurityException;
import java.security.MessageDigest;
import java.sql.Connection;
import java.sql.DriverManager;
import java.sql.PreparedStatement;
import java.sql.ResultSet;
import java.sql.SQLException;
import java.sql.Statement;
import java.sql.Types;
import java.time.LocalDate;
import java.time.LocalDateTime;
import java.time.LocalTime;
import java.time.OffsetDateTime;
import java.time.ZoneOffset;
import java.time.format.DateTimeFormatter;
import java.util.ArrayList;
import java.util.HashMap;
import java.util.HexFormat;
import java.util.LinkedHashSet;
import java.util.List;
import java.util.Map;
import java.util.Set;
import java.util.concurrent.Executors;
import java.util.concurrent.ScheduledExecutorService;
import java.util.concurrent.ScheduledFuture;
import java.util.concurrent.TimeUnit;
import org.postgresql.util.PGInterval;
import org.postgresql.util.PGobject;

class Program {
    static final int BATCH = 1000;
    static final int ROWS_AT_A_TIME = 500;
    // Attempts to cancel: the protocol does not say when a query has begun, so a request may come before it does.
    static final int CANCELS = 5;
    static final int BEFORE_CANCEL_MS = 150;
    static final int PATIENCE_S = 60;

    static String url;
    static String user;
    static String password;
    static List<String> types;
    // What the database is asked, by name.
    static final Map<String, String> SQL = new HashMap<>();

    public static void main(String[] arguments) throws Exception {
        // The version without what the distribution adds to it.
        System.out.println("version pgjdbc " + org.postgresql.util.DriverInfo.DRIVER_VERSION.split("-")[0]);
        run("postgresql", arguments, Program::new);
    }

    interface Making {
        Program of(int number) throws GeneralSecurityException;
    }

    static void run(String kind, String[] arguments, Making making) throws Exception {
        url = "jdbc:" + kind + "://" + arguments[0] + ":" + arguments[1] + "/" + arguments[4] + "?" + arguments[8];
        user = arguments[2];
        password = arguments[3];
        types = Files.readAllLines(Path.of(arguments[5], "types.tsv"));
        for (String line : Files.readAllLines(Path.of(arguments[5], "statements.tsv"))) {
            String[] parts = line.split("\t");
            SQL.put(parts[0], parts[1].replaceAll("[$]\\d", "?"));
        }
        int first = Integer.parseInt(arguments[6]);
        List<Thread> clients = new ArrayList<>();
        for (int number = first; number < first + Integer.parseInt(arguments[7]); number++) {
            Program program = making.of(number);
            clients.add(new Thread(program::client));
        }
        clients.forEach(Thread::start);
        for (Thread client : clients) {
            client.join();
        }
    }

    final int number;
    final int base;
    final MessageDigest digest;
    Connection connection;

    Program(int number) throws GeneralSecurityException {
        this.number = number;
        base = number * 100_000;
        digest = MessageDigest.getInstance("SHA-256");
    }

    void client() {
        try {
            open();
            all();
            print("digest", hex(digest.digest()));
        } catch (Exception error) {
            error.printStackTrace();
            print("failed", String.valueOf(error).replace('\n', ' '));
        }
    }

    // At once, for those who wonder what takes so long.
    void print(String what, String text) {
        System.out.println(what + " " + number + " " + text);
    }

    void say(String line) {
        digest.update((line + "\n").getBytes(StandardCharsets.UTF_8));
        print("line", line);
    }

    void open() throws SQLException {
        connection = DriverManager.getConnection(url, user, password);
    }

    void all() throws Exception {
        Set<String> kinds = new LinkedHashSet<>();
        for (String line : types) {
            String[] parts = line.split("\t", -1);
            kinds.add(parts[0]);
            ofAType(parts[0], parts[1]);
        }
        for (String kind : kinds) {
            nullOfAType(kind);
        }
        prepared();
        batch();
        transactions();
        rows();
        String cancelled = "not cancelled";
        for (int attempt = 0; attempt < CANCELS && cancelled.startsWith("not"); attempt++) {
            cancelled = cancelled() ? "cancelled" : cancelled;
        }
        say(cancelled);
        say("goes on " + one(SQL.get("one"), row -> row.getString(1), 42));
        large();
        connection.close();
        open();
        say("again " + one(SQL.get("one"), row -> row.getString(1), 42) + " " + items().split(" ")[0]);
        connection.close();
    }

    // A value as parameter, as the server's text, from text, and from a literal.
    void ofAType(String kind, String text) throws SQLException {
        String shown = kind.equals("timestamptz") ? "v AT TIME ZONE 'UTC'" : kind.equals("json") ? "CAST(v AS jsonb)" : "v";
        String sql = "SELECT v, CAST(" + shown + " AS text) FROM (SELECT CAST(? AS " + kind + ") AS v) AS x";
        String both = one(sql, row -> canonical(kind, row) + " | " + row.getString(2), value(kind, text));
        String fromText = one("SELECT CAST(CAST(? AS text) AS " + kind + ")", row -> canonical(kind, row), text);
        String quoted = "'" + text.replace("'", "''") + "'";
        String literal = one("SELECT CAST(" + quoted + " AS " + kind + ")", row -> canonical(kind, row));
        say(kind + " | " + both + " | " + fromText + " | " + literal);
    }

    void nullOfAType(String kind) throws SQLException {
        say(kind + " " + one("SELECT CAST(? AS " + kind + ")", row -> canonical(kind, row), (Object) null));
    }

    // One statement, again and again: beyond prepareThreshold it is prepared at the server.
    void prepared() throws SQLException {
        int total = 0;
        try (PreparedStatement statement = connection.prepareStatement(SQL.get("add"))) {
            for (int n = 0; n < 20; n++) {
                statement.setInt(1, n);
                statement.setInt(2, 2 * n);
                try (ResultSet row = statement.executeQuery()) {
                    row.next();
                    total += row.getInt(1);
                }
            }
        }
        say("prepared " + total);
    }

    void batch() throws SQLException {
        change(SQL.get("clear"), base, base + 99_999);
        connection.setAutoCommit(false);
        try (PreparedStatement statement = connection.prepareStatement("INSERT INTO items VALUES (?, ?)")) {
            for (int n = 0; n < BATCH; n++) {
                statement.setInt(1, base + n);
                statement.setString(2, "item " + n);
                statement.addBatch();
            }
            statement.executeBatch();
        }
        commit();
        say("batch " + items());
    }

    void transactions() throws SQLException {
        connection.setAutoCommit(false);
        insert(BATCH);
        say("inside " + items());
        rollback();
        say("rolled back " + items());

        connection.setAutoCommit(false);
        insert(BATCH + 1);
        error(() -> one(SQL.get("fails"), row -> "", 0));
        error(() -> one("SELECT 1", row -> ""));
        rollback();
        say("after an error " + items());
        connection.setAutoCommit(false);
        insert(BATCH + 1);
        change("SAVEPOINT s");
        error(() -> insert(0));
        change("ROLLBACK TO SAVEPOINT s");
        insert(BATCH + 2);
        commit();
        say("after a savepoint " + items());
        error(() -> one("SELEC 1", row -> ""));
        error(() -> one(SQL.get("missing"), row -> "", 1));
        error(() -> insert(0));
    }

    void rows() throws SQLException, GeneralSecurityException {
        MessageDigest all = MessageDigest.getInstance("SHA-256");
        int count = 0;
        // Fetches by portions only inside a transaction.
        connection.setAutoCommit(false);
        try (Statement statement = connection.createStatement()) {
            statement.setFetchSize(ROWS_AT_A_TIME);
            try (ResultSet row = statement.executeQuery("SELECT n, v FROM numbers ORDER BY n")) {
                while (row.next()) {
                    all.update((row.getInt(1) + " " + row.getString(2) + "\n").getBytes(StandardCharsets.UTF_8));
                    count++;
                }
            }
        }
        commit();
        say("rows " + count + " " + hex(all.digest()));
    }

    // A cancel counts if the driver says so and the statement has done nothing.
    boolean cancelled() throws Exception {
        int key = base + 50_000;
        boolean told = stopped(SQL.get("sleep").replace("KEY", String.valueOf(key)));
        return change(SQL.get("forget"), key) == 0 && told;
    }

    boolean stopped(String sql) throws Exception {
        boolean told = false;
        ScheduledExecutorService other = Executors.newSingleThreadScheduledExecutor();
        try (Statement statement = connection.createStatement()) {
            ScheduledFuture<?> cancel = cancelling(other, () -> {
                try {
                    statement.cancel();
                } catch (SQLException error) {
                    throw new IllegalStateException(error);
                }
            });
            try {
                statement.execute(sql);
            } catch (SQLException error) {
                if (!isCancel(error)) {
                    throw error;
                }
                told = true;
            }
            cancel.cancel(false);
            // A request still under way would hit what comes next.
            other.shutdown();
            if (!other.awaitTermination(PATIENCE_S, TimeUnit.SECONDS)) {
                throw new IllegalStateException("a cancel has not ended");
            }
            if (!cancel.isCancelled()) {
                cancel.get();
            }
        } finally {
            other.shutdown();
        }
        return told;
    }

    // Again and again: pgjdbc sends none while it only has the statement described, which may wait for its turn as well.
    ScheduledFuture<?> cancelling(ScheduledExecutorService other, Runnable cancel) {
        return other.scheduleWithFixedDelay(cancel, BEFORE_CANCEL_MS, BEFORE_CANCEL_MS, TimeUnit.MILLISECONDS);
    }

    boolean isCancel(SQLException error) {
        return "57014".equals(error.getSQLState());
    }

    void large() throws SQLException, GeneralSecurityException {
        StringBuilder text = new StringBuilder();
        byte[] bytes = new byte[1_000_000];
        for (int n = 0; n < 1_000_000; n++) {
            text.append((char) ('a' + n % 26));
            bytes[n] = (byte) (n * 7);
        }
        MessageDigest sha = MessageDigest.getInstance("SHA-256");
        say("text " + one(SQL.get("text"), row -> {
            String back = row.getString(1);
            byte[] digest = sha.digest(back.getBytes(StandardCharsets.UTF_8));
            return back.length() + " " + row.getString(2) + " " + hex(digest);
        }, text.toString()));
        say("bytea " + one(SQL.get("bytes"), row -> {
            byte[] back = row.getBytes(1);
            return back.length + " " + row.getString(2) + " " + hex(sha.digest(back));
        }, (Object) bytes));
    }

    // ---------------------------------------------------------------- JDBC

    interface Reading {
        String of(ResultSet row) throws SQLException;
    }

    interface Work {
        void run() throws SQLException;
    }

    String one(String sql, Reading reading, Object... parameters) throws SQLException {
        try (PreparedStatement statement = connection.prepareStatement(sql)) {
            set(statement, parameters);
            try (ResultSet row = statement.executeQuery()) {
                row.next();
                return reading.of(row);
            }
        }
    }

    int change(String sql, Object... parameters) throws SQLException {
        try (PreparedStatement statement = connection.prepareStatement(sql)) {
            set(statement, parameters);
            return statement.executeUpdate();
        }
    }

    void set(PreparedStatement statement, Object[] parameters) throws SQLException {
        for (int n = 0; n < parameters.length; n++) {
            if (parameters[n] instanceof Untyped) {
                statement.setObject(n + 1, ((Untyped) parameters[n]).text, Types.OTHER);
            } else {
                statement.setObject(n + 1, parameters[n]);
            }
        }
    }

    void insert(int n) throws SQLException {
        change(SQL.get("insert"), base + n, "item " + n);
    }

    String items() throws SQLException {
        return one(SQL.get("items"), row -> row.getInt(1) + " " + row.getString(2), base, base + 99_999);
    }

    void error(Work work) {
        try {
            work.run();
            say("no error");
        } catch (SQLException error) {
            say("error " + code(error));
        }
    }

    String code(SQLException error) {
        return error.getSQLState();
    }

    void commit() throws SQLException {
        connection.commit();
        connection.setAutoCommit(true);
    }

    void rollback() throws SQLException {
        connection.rollback();
        connection.setAutoCommit(true);
    }

    // ---------------------------------------------------------------- values

    // Text whose type the server finds out.
    record Untyped(String text) { }

    Object value(String kind, String text) throws SQLException {
        return switch (kind) {
            case "bool" -> Boolean.valueOf(text);
            case "int2" -> Short.valueOf(text);
            case "int4" -> Integer.valueOf(text);
            case "int8" -> Long.valueOf(text);
            case "float4" -> Float.valueOf(text);
            case "float8" -> Double.valueOf(text);
            case "numeric" -> new BigDecimal(text);
            case "bytea" -> HexFormat.of().parseHex(text.substring(2));
            case "date" -> LocalDate.parse(text);
            case "time" -> LocalTime.parse(text);
            case "timestamp" -> LocalDateTime.parse(text.replace(' ', 'T'));
            case "timestamptz" -> OffsetDateTime.parse(text.replace(' ', 'T') + ":00");
            case "interval" -> new PGInterval(text);
            case "uuid" -> java.util.UUID.fromString(text);
            case "json", "jsonb", "inet" -> object(kind, text);
            case "int4[]" -> connection.createArrayOf("int4", new Integer[] {1, null, -3});
            case "text[]" -> connection.createArrayOf("text", new String[] {"one", "two, three", "NULL", "four\"\\", ""});
            case "mood" -> new Untyped(text);
            default -> text;
        };
    }

    static PGobject object(String kind, String text) throws SQLException {
        PGobject object = new PGobject();
        object.setType(kind);
        object.setValue(text);
        return object;
    }

    // A value as text: PostgreSQL's own in most cases, bits for floats, JSON for arrays.
    static String canonical(String kind, ResultSet row) throws SQLException {
        if (row.getObject(1) == null) {
            return "null";
        }
        return switch (kind) {
            case "bool" -> String.valueOf(row.getBoolean(1));
            case "int2", "int4", "int8" -> String.valueOf(row.getLong(1));
            case "float4" -> HexFormat.of().toHexDigits(Float.floatToIntBits(row.getFloat(1)));
            case "float8" -> Double.isNaN(row.getDouble(1))
                    ? "NaN" : HexFormat.of().toHexDigits(Double.doubleToLongBits(row.getDouble(1)));
            case "numeric" -> row.getBigDecimal(1).toPlainString();
            case "bytea" -> "\\x" + hex(row.getBytes(1));
            case "date" -> row.getObject(1, LocalDate.class).toString();
            case "time" -> time(row.getObject(1, LocalTime.class));
            case "timestamp" -> moment(row.getObject(1, LocalDateTime.class));
            case "timestamptz" -> moment(row.getObject(1, OffsetDateTime.class)
                    .withOffsetSameInstant(ZoneOffset.UTC).toLocalDateTime()) + "+00";
            case "interval" -> interval((PGInterval) row.getObject(1));
            case "json", "jsonb" -> row.getString(1).replace(" ", "");
            case "int4[]", "text[]" -> array((Object[]) row.getArray(1).getArray());
            default -> row.getString(1);
        };
    }

    static String time(LocalTime time) {
        return fraction(time.format(DateTimeFormatter.ofPattern("HH:mm:ss.SSSSSS")));
    }

    static String moment(LocalDateTime moment) {
        return moment.toLocalDate() + " " + time(moment.toLocalTime());
    }

    static String interval(PGInterval interval) {
        String time = String.format("%02d:%02d:%02d.%06d", interval.getHours(), interval.getMinutes(),
                interval.getWholeSeconds(), interval.getMicroSeconds());
        return interval.getDays() + " day " + fraction(time);
    }

    static String fraction(String text) {
        return text.replaceAll("\\.?0+$", "");
    }

    static String array(Object[] values) {
        List<String> texts = new ArrayList<>();
        for (Object value : values) {
            boolean quoted = value instanceof String;
            String text = String.valueOf(value).replace("\\", "\\\\").replace("\"", "\\\"");
            texts.add(quoted ? "\"" + text + "\"" : text);
        }
        return "[" + String.join(",", texts) + "]";
    }

    static String hex(byte[] bytes) {
        return HexFormat.of().formatHex(bytes);
    }
}
