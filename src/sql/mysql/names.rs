//! Names that may stand before a parenthesis and call nothing that a user has made.
//!
//! Keywords, and the functions that MySQL 9.7 and MariaDB 10.11 have built in, as these servers answered when a stored function of each
//! name was called, with and without a blank in front of the parenthesis, without arguments and with up to three. A stored function of
//! such a name can only be called with its database's name in front. Functions that do something to the connection (`GET_LOCK`) are
//! told apart by the scan. Loadable functions are left out, whoever made them, but for those which read what their client has sent.
//! Names that are the server's own on some servers, or at some places, and free on others are lists of their own: who is meant is known
//! once a server was asked for a stored function of that name.

/// In MySQL and MariaDB. Sorted.
#[rustfmt::skip]
const BOTH: &[&str] = &[
    "abs", "accessible", "acos", "add", "adddate", "addtime", "aes_decrypt", "aes_encrypt", "all", "alter", "analyze",
    "and", "any", "as", "asc", "ascii", "asin", "atan", "atan2", "avg", "before", "begin", "benchmark", "between",
    "bigint", "bin", "binary", "bit", "bit_and", "bit_count", "bit_length", "bit_or", "bit_xor", "blob", "bool",
    "boolean", "both", "by", "call", "cascade", "case", "cast", "ceil", "ceiling", "change", "char", "char_length",
    "character", "character_length", "charset", "check", "checksum", "coalesce", "coercibility", "collate", "collation",
    "column", "comment", "compress", "concat", "concat_ws", "connection_id", "constraint", "contains", "conv",
    "convert", "convert_tz", "cot", "count", "crc32", "create", "cross", "cume_dist", "curdate", "current_date",
    "current_role", "current_time", "current_timestamp", "current_user", "curtime", "database", "date", "date_add",
    "date_format", "date_sub", "datediff", "datetime", "day", "dayname", "dayofmonth", "dayofweek", "dayofyear", "dec",
    "decimal", "default", "degrees", "delete", "dense_rank", "desc", "describe", "distinct", "distinctrow", "div", "do",
    "double", "drop", "each", "else", "elt", "end", "enum", "except", "exclude", "execute", "exists", "exp", "explain",
    "export_set", "extract", "extractvalue", "false", "field", "find_in_set", "first_value", "fixed", "float", "float4",
    "float8", "floor", "following", "for", "force", "foreign", "format", "from", "from_base64", "from_days",
    "from_unixtime", "fulltext", "function", "geometrycollection", "global", "grant", "greatest", "group",
    "group_concat", "having", "hex", "high_priority", "hour", "if", "ifnull", "ignore", "in", "index", "inet6_aton",
    "inet6_ntoa", "inet_aton", "inet_ntoa", "infile", "inner", "inout", "insert", "instr", "int", "int1", "int2",
    "int3", "int4", "int8", "integer", "intersect", "interval", "into", "is", "is_free_lock", "is_ipv4",
    "is_ipv4_compat", "is_ipv4_mapped", "is_ipv6", "is_used_lock", "isnull", "join", "json", "json_array",
    "json_array_append", "json_array_insert", "json_arrayagg", "json_contains", "json_contains_path", "json_depth",
    "json_extract", "json_insert", "json_keys", "json_length", "json_merge", "json_merge_patch", "json_merge_preserve",
    "json_object", "json_objectagg", "json_overlaps", "json_pretty", "json_quote", "json_remove", "json_replace",
    "json_search", "json_set", "json_type", "json_unquote", "json_valid", "json_value", "key", "keys", "kill", "lag",
    "last_day", "last_value", "lcase", "lead", "leading", "least", "left", "length", "like", "limit", "linear", "lines",
    "linestring", "ln", "load", "load_file", "localtime", "localtimestamp", "locate", "lock", "log", "log10", "log2",
    "long", "longblob", "longtext", "low_priority", "lower", "lpad", "ltrim", "make_set", "makedate", "maketime",
    "master_pos_wait", "match", "max", "maxvalue", "mbrcontains", "mbrdisjoint", "mbrequals", "mbrintersects",
    "mbroverlaps", "mbrtouches", "mbrwithin", "mediumblob", "mediumint", "mediumtext", "microsecond", "mid", "min",
    "minute", "mod", "month", "monthname", "multilinestring", "multipoint", "multipolygon", "natural", "nchar", "no",
    "not", "now", "nth_value", "ntile", "null", "nullif", "number", "numeric", "nvarchar", "oct", "octet_length",
    "offset", "on", "or", "ord", "order", "out", "outer", "outfile", "over", "partition", "password", "percent_rank",
    "period_add", "period_diff", "pi", "polygon", "position", "pow", "power", "preceding", "precision", "primary",
    "procedure", "quarter", "quote", "radians", "rand", "random_bytes", "range", "rank", "real", "recursive",
    "references", "regexp", "regexp_instr", "regexp_replace", "regexp_substr", "rename", "repeat", "replace", "require",
    "restrict", "return", "returning", "reverse", "revoke", "right", "rlike", "round", "row", "row_number", "rows",
    "rpad", "rtrim", "schema", "schemas", "sec_to_time", "second", "select", "separator", "serial", "session",
    "session_user", "set", "sha2", "show", "sign", "signal", "sleep", "smallint", "some", "soname", "soundex", "sounds",
    "space", "spatial", "sql_big_result", "sql_calc_found_rows", "sql_small_result", "sqrt", "srid", "st_area",
    "st_asbinary", "st_asgeojson", "st_astext", "st_aswkb", "st_aswkt", "st_buffer", "st_centroid", "st_contains",
    "st_convexhull", "st_crosses", "st_difference", "st_dimension", "st_disjoint", "st_distance", "st_distance_sphere",
    "st_endpoint", "st_envelope", "st_equals", "st_exteriorring", "st_geomcollfromtext", "st_geomcollfromwkb",
    "st_geometrycollectionfromtext", "st_geometrycollectionfromwkb", "st_geometryfromtext", "st_geometryfromwkb",
    "st_geometryn", "st_geometrytype", "st_geomfromgeojson", "st_geomfromtext", "st_geomfromwkb", "st_interiorringn",
    "st_intersection", "st_intersects", "st_isclosed", "st_isempty", "st_issimple", "st_length", "st_linefromtext",
    "st_linefromwkb", "st_linestringfromtext", "st_linestringfromwkb", "st_mlinefromtext", "st_mlinefromwkb",
    "st_mpointfromtext", "st_mpointfromwkb", "st_mpolyfromtext", "st_mpolyfromwkb", "st_multilinestringfromtext",
    "st_multilinestringfromwkb", "st_multipointfromtext", "st_multipointfromwkb", "st_multipolygonfromtext",
    "st_multipolygonfromwkb", "st_numgeometries", "st_numinteriorrings", "st_numpoints", "st_overlaps",
    "st_pointfromtext", "st_pointfromwkb", "st_pointn", "st_polyfromtext", "st_polyfromwkb", "st_polygonfromtext",
    "st_polygonfromwkb", "st_srid", "st_startpoint", "st_symdifference", "st_touches", "st_union", "st_within", "st_x",
    "st_y", "starting", "std", "stddev", "stddev_pop", "stddev_samp", "stored", "str_to_date", "straight_join",
    "strcmp", "subdate", "substr", "substring", "substring_index", "subtime", "sum", "sysdate", "system_user", "table",
    "terminated", "text", "then", "time", "time_to_sec", "timediff", "timestamp", "timestampadd", "timestampdiff",
    "tinyblob", "tinyint", "tinytext", "to", "to_base64", "to_days", "to_seconds", "trailing", "trigger", "trim",
    "true", "truncate", "ucase", "uncompress", "uncompressed_length", "unhex", "union", "unique", "unix_timestamp",
    "unlock", "unsigned", "update", "updatexml", "upper", "usage", "use", "user", "using", "utc_date", "utc_time",
    "utc_timestamp", "uuid", "uuid_short", "value", "values", "var_pop", "var_samp", "varbinary", "varchar",
    "varcharacter", "variance", "varying", "version", "week", "weekday", "weekofyear", "weight_string", "when", "where",
    "while", "window", "with", "write", "xor", "year", "yearweek", "zerofill",
];

/// In MySQL alone. Sorted.
#[rustfmt::skip]
const MYSQL: &[&str] = &[
    "action", "after", "against", "always", "any_value", "array", "at", "auto_increment", "bin_to_uuid", "btree",
    "columns", "compression", "connection", "cube", "current_role_in", "current_user_in", "data", "duplicate", "elseif",
    "empty", "error", "escape", "etag", "event", "extended", "fields", "first", "format_bytes", "format_pico_time",
    "from_vector", "full", "general", "geomcollection", "geometry", "grouping", "groups", "gtid_subset",
    "gtid_subtract", "hash", "invisible", "is_uuid", "is_visible_dd_object", "json_duality_object", "json_schema_valid",
    "json_schema_validation_report", "json_storage_free", "json_storage_size", "json_table", "lateral", "list",
    "mbrcoveredby", "mbrcovers", "member", "merge", "modify", "nested", "next", "of", "only", "ordinality",
    "partitions", "path", "point", "privileges", "ps_current_thread_id", "ps_thread_id", "qualify", "quick",
    "regexp_like", "roles_graphml", "rollup", "rtree", "share", "source_pos_wait", "sql_buffer_result", "sql_no_cache",
    "st_buffer_strategy", "st_collect", "st_frechetdistance", "st_geohash", "st_geomcollfromtxt",
    "st_hausdorffdistance", "st_isvalid", "st_latfromgeohash", "st_latitude", "st_lineinterpolatepoint",
    "st_lineinterpolatepoints", "st_longfromgeohash", "st_longitude", "st_makeenvelope", "st_numinteriorring",
    "st_pointatdistance", "st_pointfromgeohash", "st_simplify", "st_swapxy", "st_transform", "st_validate",
    "statement_digest", "statement_digest_text", "storage", "string_to_vector", "subpartition", "subpartitions",
    "tables", "temporary", "than", "to_vector", "unknown", "uuid_to_bin", "validate_password_strength", "vector",
    "vector_dim", "vector_to_string", "view", "virtual", "visible", "wait", "wait_for_executed_gtid_set", "without",
    "work",
];

/// In MariaDB alone. Sorted.
#[rustfmt::skip]
const MARIADB: &[&str] = &[
    "add_months", "area", "asbinary", "astext", "aswkb", "aswkt", "binlog_gtid_pos", "boundary", "buffer", "centroid",
    "chr", "column_add", "column_check", "column_create", "column_delete", "column_exists", "column_get", "column_json",
    "column_list", "concat_operator_oracle", "convexhull", "crc32c", "crosses", "decode", "decode_histogram",
    "decode_oracle", "des_decrypt", "des_encrypt", "dimension", "disjoint", "encode", "encrypt", "endpoint", "envelope",
    "equals", "exteriorring", "geomcollfromtext", "geomcollfromwkb", "geometrycollectionfromtext",
    "geometrycollectionfromwkb", "geometryfromtext", "geometryfromwkb", "geometryn", "geometrytype", "geomfromtext",
    "geomfromwkb", "glength", "interiorringn", "intersects", "isclosed", "isempty", "isring", "issimple",
    "json_compact", "json_detailed", "json_equals", "json_exists", "json_loose", "json_normalize", "json_query",
    "lengthb", "linefromtext", "linefromwkb", "linestringfromtext", "linestringfromwkb", "lpad_oracle", "ltrim_oracle",
    "master_gtid_wait", "mbrequal", "md5", "median", "mlinefromtext", "mlinefromwkb", "mpointfromtext", "mpointfromwkb",
    "mpolyfromtext", "mpolyfromwkb", "multilinestringfromtext", "multilinestringfromwkb", "multipointfromtext",
    "multipointfromwkb", "multipolygonfromtext", "multipolygonfromwkb", "natural_sort_key", "numgeometries",
    "numinteriorrings", "numpoints", "nvl", "nvl2", "old_password", "overlaps", "percentile_cont", "percentile_disc",
    "pointfromtext", "pointfromwkb", "pointn", "polyfromtext", "polyfromwkb", "polygonfromtext", "polygonfromwkb",
    "raw", "replace_oracle", "rownum", "rpad_oracle", "rtrim_oracle", "sformat", "sha", "sha1", "st_boundary",
    "st_isring", "st_pointonsurface", "st_relate", "startpoint", "substr_oracle", "sys_guid", "to_char", "touches",
    "trim_oracle", "varchar2", "within", "wsrep_sync_wait_upto_gtid", "x", "y",
];

/// In either, if the parenthesis begins right behind the name; else they are a user's, unless `IGNORE_SPACE` is on. Sorted.
#[rustfmt::skip]
const CLOSE: &[&str] = &[
    "adddate", "bit_and", "bit_or", "bit_xor", "cast", "count", "curdate", "curtime", "date_add", "date_sub", "extract",
    "group_concat", "json_arrayagg", "json_objectagg", "max", "mid", "min", "now", "position", "session_user", "std",
    "stddev", "stddev_pop", "stddev_samp", "subdate", "substr", "substring", "sum", "system_user", "trim", "var_pop",
    "var_samp", "variance",
];

/// The same in MySQL alone. Sorted.
#[rustfmt::skip]
const CLOSE_MYSQL: &[&str] = &[
    "json_duality_object", "st_collect", "sysdate",
];

/// The same in MariaDB alone. Sorted.
#[rustfmt::skip]
const CLOSE_MARIADB: &[&str] = &[
    "cume_dist", "dense_rank", "first_value", "lag", "lead", "median", "nth_value", "ntile", "percent_rank",
    "percentile_cont", "percentile_disc", "rank", "trim_oracle",
];

/// In MariaDB, if something stands in the parentheses. Sorted.
const FILLED_MARIADB: &[&str] =
    &["geometrycollection", "linestring", "multilinestring", "multipoint", "multipolygon", "polygon"];

/// In MySQL, if it is older, or if they are loaded. Sorted.
#[rustfmt::skip]
const SOME_MYSQL: &[&str] = &[
    "md5", "mysql_query_attribute_string", "service_get_read_locks", "service_get_write_locks", "service_release_locks",
    "sha", "sha1", "version_tokens_lock_exclusive", "version_tokens_lock_shared", "version_tokens_unlock",
];

/// In MariaDB, if it is newer, or at some places: behind `FROM` or `SELECT`, with two arguments. Sorted.
#[rustfmt::skip]
const SOME_MARIADB: &[&str] = &[
    "json_array_intersect", "json_key_value", "json_object_filter_keys", "json_object_to_array", "json_schema_valid",
    "json_table", "kdf", "point", "sql_buffer_result", "sql_cache", "sql_no_cache", "uuid_v4", "uuid_v7",
    "vec_distance", "vec_distance_cosine", "vec_distance_euclidean", "vec_fromtext", "vec_totext",
];

/// Words that a parenthesis follows in the definition of a table, and may be functions elsewhere. Sorted.
#[rustfmt::skip]
const DEFINITIONS: &[&str] = &[
    "action", "after", "against", "always", "analyse", "array", "at", "auto_increment", "btree", "cluster",
    "clustering", "columns", "compression", "connection", "cube", "data", "duplicate", "empty", "error", "escape",
    "event", "extended", "fields", "first", "full", "general", "geomcollection", "geometry", "groups", "hash", "hidden",
    "include", "invisible", "lateral", "list", "lists", "merge", "minus", "minvalue", "modify", "nested", "next", "of",
    "only", "ordinality", "partitions", "path", "persistent", "previous", "privileges", "qualify", "quick", "raw",
    "rollup", "rtree", "share", "storage", "subpartition", "subpartitions", "system_time", "tables", "temporary",
    "than", "unknown", "varchar2", "vector", "versioning", "view", "virtual", "visible", "wait", "without", "work",
];

/// The longest of them.
const BYTES_MAX: usize = 29;

/// What stands between the parentheses, and in front of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Parentheses {
    /// They begin right behind the name.
    pub(super) are_close: bool,
    /// Nothing stands in them.
    pub(super) are_empty: bool,
}

/// The word, not quoted, calls nothing that a user has made.
pub(super) fn is_known(word: &[u8], parentheses: Parentheses, mariadb: bool) -> bool {
    let (own, close): (_, &[_]) =
        if mariadb { (MARIADB, &[CLOSE, CLOSE_MARIADB]) } else { (MYSQL, &[CLOSE, CLOSE_MYSQL]) };
    let is_apart = || !parentheses.are_close && is_in(close, word);
    is_in(&[BOTH, own], word) && !is_apart() && !(parentheses.are_empty && is_filled(word, mariadb))
}

/// It does so only if there is something in its parentheses.
pub(super) fn is_filled(word: &[u8], mariadb: bool) -> bool {
    mariadb && is_in(&[FILLED_MARIADB], word)
}

/// The word, not quoted, calls nothing in the definition of a table.
pub(super) fn is_definition(word: &[u8]) -> bool {
    is_in(&[DEFINITIONS], word)
}

/// What it calls, whatever stands around it, is the server's own unless there is a stored function of this name.
pub(super) fn may_be_known(name: &[u8], mariadb: bool) -> bool {
    is_in(if mariadb { &[BOTH, MARIADB, SOME_MARIADB] } else { &[BOTH, MYSQL, SOME_MYSQL] }, name)
}

/// In whatever letters.
fn is_in(lists: &[&[&str]], word: &[u8]) -> bool {
    let mut lower = [0; BYTES_MAX];
    let Some(lower) = lower.get_mut(..word.len()) else { return false };
    lower.copy_from_slice(word);
    lower.make_ascii_lowercase();
    lists.iter().any(|names| names.binary_search_by(|name| name.as_bytes().cmp(lower)).is_ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    const FLAVOURS: [bool; 2] = [false, true];
    const CALL: Parentheses = Parentheses { are_close: true, are_empty: false };
    const APART: Parentheses = Parentheses { are_close: false, ..CALL };
    const EMPTY: Parentheses = Parentheses { are_empty: true, ..CALL };

    /// In MySQL and in MariaDB.
    fn is_known_in(name: &str, parentheses: Parentheses) -> [bool; 2] {
        FLAVOURS.map(|mariadb| is_known(name.to_ascii_uppercase().as_bytes(), parentheses, mariadb))
    }

    #[test]
    fn the_lists_are_sorted_and_found() {
        let some = [SOME_MYSQL, SOME_MARIADB, FILLED_MARIADB];
        let lists = [BOTH, MYSQL, MARIADB, DEFINITIONS, CLOSE, CLOSE_MYSQL, CLOSE_MARIADB];
        let all = || lists.iter().chain(&some);
        assert!(all().all(|list| list.is_sorted()));
        assert_eq!(all().flat_map(|list| list.iter()).map(|name| name.len()).max(), Some(BYTES_MAX));
        for (list, expected) in [(BOTH, [true, true]), (MYSQL, [true, false]), (MARIADB, [false, true])] {
            for name in list {
                assert_eq!(is_known_in(name, CALL), expected, "{name}");
            }
        }
        for (list, [mysql, mariadb]) in
            [(CLOSE, [true, true]), (CLOSE_MYSQL, [true, false]), (CLOSE_MARIADB, [false, true])]
        {
            for name in list {
                let [mysql, mariadb] = [!mysql, !mariadb];
                let known = is_known_in(name, CALL);
                assert!(known != [false, false], "{name}");
                assert_eq!(is_known_in(name, APART), [known[0] && mysql, known[1] && mariadb], "{name}");
            }
        }
        for name in FILLED_MARIADB {
            let found = [CALL, EMPTY].map(|parentheses| is_known_in(name, parentheses));
            assert_eq!(found, [[true, true], [true, false]], "{name}");
        }
        for (list, at) in [(SOME_MYSQL, 0), (SOME_MARIADB, 1)] {
            for name in list {
                assert!(!is_known_in(name, CALL)[at] && may_be_known(name.as_bytes(), at == 1), "{name}");
            }
        }
        assert!(DEFINITIONS.iter().all(|name| is_definition(name.as_bytes())));
        for name in [
            "",
            "get_lock",
            "release_lock",
            "last_insert_id",
            "sets_tenant",
            "a_name_that_is_longer_than_any_other_there_is",
        ] {
            assert_eq!(is_known_in(name, CALL), [false, false], "{name}");
            assert_eq!(FLAVOURS.map(|mariadb| may_be_known(name.as_bytes(), mariadb)), [false, false], "{name}");
            assert!(!is_definition(name.as_bytes()), "{name}");
        }
    }
}
