//! Names that may stand before a parenthesis and call nothing that a user has made.
//!
//! Keywords, and the functions that MySQL 9.7 and MariaDB 10.11 have built in, as these servers answered when each was called
//! (1305 if it is free for a user's function), with what later MariaDB versions add under names like nobody's. Those that
//! do something to the connection (`GET_LOCK`) are told apart by the scan. Loadable functions are left out, whoever made them,
//! but for the one by which a statement reads what its client has told beside it.
//! A stored function of a built-in one's name can only be called with its database's name in front, or, for the few that the
//! parser itself knows (`count (x)`, with the blank), in a way that is not seen here.

/// In MySQL and MariaDB. Sorted.
#[rustfmt::skip]
const BOTH: &[&str] = &[
    "abs", "accessible", "acos", "add", "adddate", "addtime", "aes_decrypt", "aes_encrypt", "all", "alter", "analyze",
    "and", "any", "as", "asc", "ascii", "asin", "atan", "atan2", "avg", "before", "begin", "benchmark", "between",
    "bigint", "bin", "binary", "bit", "bit_and", "bit_count", "bit_length", "bit_or", "bit_xor", "blob", "bool",
    "boolean", "both", "by", "call", "cascade", "case", "cast", "ceil", "ceiling", "change", "char", "char_length",
    "character", "character_length", "charset", "check", "checksum", "coalesce", "coercibility", "collate",
    "collation", "column", "comment", "compress", "concat", "concat_ws", "connection_id", "constraint", "contains",
    "conv", "convert", "convert_tz", "cot", "count", "crc32", "create", "cross", "cume_dist", "curdate",
    "current_date", "current_role", "current_time", "current_timestamp", "current_user", "curtime", "database",
    "date", "date_add", "date_format", "date_sub", "datediff", "datetime", "day", "dayname", "dayofmonth",
    "dayofweek", "dayofyear", "dec", "decimal", "default", "degrees", "delete", "dense_rank", "desc", "describe",
    "distinct", "distinctrow", "div", "do", "double", "drop", "each", "else", "elseif", "elt", "end", "enum",
    "except", "exclude", "execute", "exists", "exp", "explain", "export_set", "extract", "extractvalue", "false",
    "field", "find_in_set", "first_value", "fixed", "float", "float4", "float8", "floor", "following", "for", "force",
    "foreign", "format", "from", "from_base64", "from_days", "from_unixtime", "fulltext", "function",
    "geometrycollection", "global", "grant", "greatest", "group", "group_concat", "having", "hex", "high_priority",
    "hour", "if", "ifnull", "ignore", "in", "index", "inet6_aton", "inet6_ntoa", "inet_aton", "inet_ntoa", "infile",
    "inner", "inout", "insert", "instr", "int", "int1", "int2", "int3", "int4", "int8", "integer", "intersect",
    "interval", "into", "is", "is_free_lock", "is_ipv4", "is_ipv4_compat", "is_ipv4_mapped", "is_ipv6",
    "is_used_lock", "isnull", "join", "json", "json_array", "json_array_append", "json_array_insert", "json_arrayagg",
    "json_contains", "json_contains_path", "json_depth", "json_extract", "json_insert", "json_keys", "json_length",
    "json_merge", "json_merge_patch", "json_merge_preserve", "json_object", "json_objectagg", "json_overlaps",
    "json_pretty", "json_quote", "json_remove", "json_replace", "json_schema_valid", "json_search", "json_set",
    "json_table", "json_type", "json_unquote", "json_valid", "json_value", "key", "keys", "kill", "lag", "last_day",
    "last_value", "lcase", "lead", "leading", "least", "left", "length", "like", "limit", "linear", "lines",
    "linestring", "ln", "load", "load_file", "localtime", "localtimestamp", "locate", "lock", "log", "log10", "log2",
    "long", "longblob", "longtext", "low_priority", "lower", "lpad", "ltrim", "make_set", "makedate", "maketime",
    "master_pos_wait", "match", "max", "maxvalue", "mbrcontains", "mbrdisjoint", "mbrequals", "mbrintersects",
    "mbroverlaps", "mbrtouches", "mbrwithin", "md5", "mediumblob", "mediumint", "mediumtext", "microsecond", "mid",
    "min", "minute", "mod", "month", "monthname", "multilinestring", "multipoint", "multipolygon", "natural", "nchar",
    "no", "not", "now", "nth_value", "ntile", "null", "nullif", "number", "numeric", "nvarchar", "oct",
    "octet_length", "offset", "on", "or", "ord", "order", "out", "outer", "outfile", "over", "partition", "password",
    "percent_rank", "period_add", "period_diff", "pi", "point", "polygon", "position", "pow", "power", "preceding",
    "precision", "primary", "procedure", "quarter", "quote", "radians", "rand", "random_bytes", "range", "rank",
    "real", "recursive", "references", "regexp", "regexp_instr", "regexp_replace", "regexp_substr", "rename",
    "repeat", "replace", "require", "restrict", "return", "returning", "reverse", "revoke", "right", "rlike", "round",
    "row", "row_number", "rows", "rpad", "rtrim", "schema", "schemas", "sec_to_time", "second", "select", "separator",
    "serial", "session", "session_user", "set", "sha", "sha1", "sha2", "show", "sign", "signal", "sleep", "smallint",
    "some", "soname", "soundex", "sounds", "space", "spatial", "sql_big_result", "sql_buffer_result",
    "sql_calc_found_rows", "sql_no_cache", "sql_small_result", "sqrt", "srid", "st_area", "st_asbinary",
    "st_asgeojson", "st_astext", "st_aswkb", "st_aswkt", "st_buffer", "st_centroid", "st_contains", "st_convexhull",
    "st_crosses", "st_difference", "st_dimension", "st_disjoint", "st_distance", "st_distance_sphere", "st_endpoint",
    "st_envelope", "st_equals", "st_exteriorring", "st_geomcollfromtext", "st_geomcollfromwkb",
    "st_geometrycollectionfromtext", "st_geometrycollectionfromwkb", "st_geometryfromtext", "st_geometryfromwkb",
    "st_geometryn", "st_geometrytype", "st_geomfromgeojson", "st_geomfromtext", "st_geomfromwkb", "st_interiorringn",
    "st_intersection", "st_intersects", "st_isclosed", "st_isempty", "st_issimple", "st_length", "st_linefromtext",
    "st_linefromwkb", "st_linestringfromtext", "st_linestringfromwkb", "st_mlinefromtext", "st_mlinefromwkb",
    "st_mpointfromtext", "st_mpointfromwkb", "st_mpolyfromtext", "st_mpolyfromwkb", "st_multilinestringfromtext",
    "st_multilinestringfromwkb", "st_multipointfromtext", "st_multipointfromwkb", "st_multipolygonfromtext",
    "st_multipolygonfromwkb", "st_numgeometries", "st_numinteriorrings", "st_numpoints", "st_overlaps",
    "st_pointfromtext", "st_pointfromwkb", "st_pointn", "st_polyfromtext", "st_polyfromwkb", "st_polygonfromtext",
    "st_polygonfromwkb", "st_srid", "st_startpoint", "st_symdifference", "st_touches", "st_union", "st_within",
    "st_x", "st_y", "starting", "std", "stddev", "stddev_pop", "stddev_samp", "stored", "str_to_date",
    "straight_join", "strcmp", "subdate", "substr", "substring", "substring_index", "subtime", "sum", "sysdate",
    "system_user", "table", "terminated", "text", "then", "time", "time_to_sec", "timediff", "timestamp",
    "timestampadd", "timestampdiff", "tinyblob", "tinyint", "tinytext", "to", "to_base64", "to_days", "to_seconds",
    "trailing", "trigger", "trim", "true", "truncate", "ucase", "uncompress", "uncompressed_length", "unhex", "union",
    "unique", "unix_timestamp", "unlock", "unsigned", "update", "updatexml", "upper", "usage", "use", "user", "using",
    "utc_date", "utc_time", "utc_timestamp", "uuid", "uuid_short", "value", "values", "var_pop", "var_samp",
    "varbinary", "varchar", "varcharacter", "variance", "varying", "version", "week", "weekday", "weekofyear",
    "weight_string", "when", "where", "while", "window", "with", "write", "xor", "year", "yearweek", "zerofill",
];

/// In MySQL alone. Sorted.
#[rustfmt::skip]
const MYSQL: &[&str] = &[
    "action", "after", "against", "always", "any_value", "array", "at", "auto_increment", "bin_to_uuid", "btree",
    "columns", "compression", "connection", "cube", "current_role_in", "current_user_in", "data", "duplicate",
    "empty", "error", "escape", "etag", "event", "extended", "fields", "first", "format_bytes", "format_pico_time",
    "from_vector", "full", "general", "geomcollection", "geometry", "grouping", "groups", "gtid_subset",
    "gtid_subtract", "hash", "invisible", "is_uuid", "is_visible_dd_object", "json_duality_object",
    "json_schema_validation_report", "json_storage_free", "json_storage_size", "lateral", "list", "mbrcoveredby",
    "mbrcovers", "member", "merge", "modify", "mysql_query_attribute_string", "nested", "next", "of", "only", "ordinality", "partitions", "path",
    "privileges", "ps_current_thread_id", "ps_thread_id", "qualify", "quick", "regexp_like", "roles_graphml",
    "rollup", "rtree", "share", "source_pos_wait", "st_buffer_strategy", "st_collect", "st_frechetdistance",
    "st_geohash", "st_geomcollfromtxt", "st_hausdorffdistance", "st_isvalid", "st_latfromgeohash", "st_latitude",
    "st_lineinterpolatepoint", "st_lineinterpolatepoints", "st_longfromgeohash", "st_longitude", "st_makeenvelope",
    "st_numinteriorring", "st_pointatdistance", "st_pointfromgeohash", "st_simplify", "st_swapxy", "st_transform",
    "st_validate", "statement_digest", "statement_digest_text", "storage", "string_to_vector", "subpartition",
    "subpartitions", "tables", "temporary", "than", "to_vector", "unknown", "uuid_to_bin",
    "validate_password_strength", "vector", "vector_dim", "vector_to_string", "view", "virtual", "visible", "wait",
    "wait_for_executed_gtid_set", "without", "work",
];

/// In MariaDB alone. Sorted.
#[rustfmt::skip]
const MARIADB: &[&str] = &[
    "add_months", "area", "asbinary", "astext", "aswkb", "aswkt", "binlog_gtid_pos", "boundary", "buffer", "centroid",
    "chr", "column_add", "column_check", "column_create", "column_delete", "column_exists", "column_get",
    "column_json", "column_list", "concat_operator_oracle", "convexhull", "crc32c", "crosses", "decode",
    "decode_histogram", "decode_oracle", "des_decrypt", "des_encrypt", "dimension", "disjoint", "encode", "encrypt",
    "endpoint", "envelope", "equals", "exteriorring", "geomcollfromtext", "geomcollfromwkb",
    "geometrycollectionfromtext", "geometrycollectionfromwkb", "geometryfromtext", "geometryfromwkb", "geometryn",
    "geometrytype", "geomfromtext", "geomfromwkb", "glength", "interiorringn", "intersects", "isclosed", "isempty",
    "isring", "issimple", "json_array_intersect", "json_compact", "json_detailed", "json_equals", "json_exists",
    "json_key_value", "json_loose", "json_normalize", "json_object_filter_keys", "json_object_to_array", "json_query",
    "kdf", "lengthb", "linefromtext", "linefromwkb", "linestringfromtext", "linestringfromwkb", "lpad_oracle",
    "ltrim_oracle", "master_gtid_wait", "mbrequal", "median", "mlinefromtext", "mlinefromwkb", "mpointfromtext",
    "mpointfromwkb", "mpolyfromtext", "mpolyfromwkb", "multilinestringfromtext", "multilinestringfromwkb",
    "multipointfromtext", "multipointfromwkb", "multipolygonfromtext", "multipolygonfromwkb", "natural_sort_key",
    "numgeometries", "numinteriorrings", "numpoints", "nvl", "nvl2", "old_password", "overlaps", "percentile_cont",
    "percentile_disc", "pointfromtext", "pointfromwkb", "pointn", "polyfromtext", "polyfromwkb", "polygonfromtext",
    "polygonfromwkb", "raw", "replace_oracle", "rownum", "rpad_oracle", "rtrim_oracle", "sformat", "sql_cache",
    "st_boundary", "st_isring", "st_pointonsurface", "st_relate", "startpoint", "substr_oracle", "sys_guid",
    "to_char", "touches", "trim_oracle", "trt_begin_ts", "trt_commit_id", "trt_commit_ts", "trt_iso_level",
    "trt_trx_id", "trt_trx_sees", "trt_trx_sees_eq", "uuid_v4", "uuid_v7", "varchar2", "vec_distance",
    "vec_distance_cosine", "vec_distance_euclidean", "vec_fromtext", "vec_totext", "within",
    "wsrep_sync_wait_upto_gtid", "x", "y",
];

/// Words that a parenthesis follows in the definition of a table, and may be functions elsewhere. Sorted.
#[rustfmt::skip]
const DEFINITIONS: &[&str] = &[
    "action", "after", "against", "always", "analyse", "array", "at", "auto_increment", "btree", "cluster",
    "clustering", "columns", "compression", "connection", "cube", "data", "duplicate", "empty", "error", "escape",
    "event", "extended", "fields", "first", "full", "general", "geomcollection", "geometry", "groups", "hash",
    "hidden", "include", "invisible", "lateral", "list", "lists", "merge", "minus", "minvalue", "modify", "nested",
    "next", "of", "only", "ordinality", "partitions", "path", "persistent", "previous", "privileges", "qualify",
    "quick", "raw", "rollup", "rtree", "share", "sql_cache", "storage", "subpartition", "subpartitions",
    "system_time", "tables", "temporary", "than", "unknown", "varchar2", "vector", "versioning", "view", "virtual",
    "visible", "wait", "without", "work",
];

/// The longest of them.
const BYTES_MAX: usize = 29;

/// The word, not quoted, is one of these.
pub(super) fn is_known(word: &[u8], mariadb: bool, is_definition: bool) -> bool {
    let mut lower = [0; BYTES_MAX];
    let Some(lower) = lower.get_mut(..word.len()) else { return false };
    lower.copy_from_slice(word);
    lower.make_ascii_lowercase();
    let is_in = |names: &[&str]| names.binary_search_by(|name| name.as_bytes().cmp(lower)).is_ok();
    is_in(BOTH) || is_in(if mariadb { MARIADB } else { MYSQL }) || is_definition && is_in(DEFINITIONS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lists_are_sorted_and_found() {
        let lists = [BOTH, MYSQL, MARIADB, DEFINITIONS];
        assert!(lists.iter().all(|list| list.is_sorted()));
        assert_eq!(lists.concat().iter().map(|name| name.len()).max(), Some(BYTES_MAX));
        for (list, mysql, mariadb) in [(BOTH, true, true), (MYSQL, true, false), (MARIADB, false, true)] {
            for name in list {
                let upper = name.to_ascii_uppercase();
                let found = [false, true].map(|is_mariadb| is_known(upper.as_bytes(), is_mariadb, false));
                assert_eq!(found, [mysql, mariadb], "{name}");
            }
        }
        assert!(
            DEFINITIONS
                .iter()
                .all(|name| is_known(name.as_bytes(), false, true) && is_known(name.as_bytes(), true, true))
        );
        for name in [
            "",
            "get_lock",
            "release_lock",
            "last_insert_id",
            "sets_tenant",
            "a_name_that_is_longer_than_any_other_there_is",
        ] {
            assert!(!is_known(name.as_bytes(), false, true) && !is_known(name.as_bytes(), true, true), "{name}");
        }
    }
}
