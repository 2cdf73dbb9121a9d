//! Names that may stand before a parenthesis and call nothing that a user has made.
//!
//! Functions that MySQL 9.7 and MariaDB 10.11 have built in, of their manuals' function indexes; those that do something to the
//! connection (`GET_LOCK`) are told apart by the scan. Loadable functions are left out, whoever made them. A stored function
//! of a built-in one's name can only be called with its database's name in front, or (for the few that the parser itself
//! knows, `count (x)` with the blank) in a way that is not seen here.

/// Built-in functions without an effect on the connection. Sorted.
#[rustfmt::skip]
const FUNCTIONS: &[&str] = &[
    "abs", "acos", "add_months", "adddate", "addtime", "aes_decrypt", "aes_encrypt", "any_value", "area", "asbinary",
    "ascii", "asin", "astext", "aswkb", "aswkt", "atan", "atan2", "avg", "benchmark", "bin", "bin_to_uuid",
    "binlog_gtid_pos", "bit_and", "bit_count", "bit_length", "bit_or", "bit_xor", "boundary", "buffer", "cast",
    "cbrt", "ceil", "ceiling", "centroid", "char", "char_length", "character_length", "charset", "chr", "coalesce",
    "coercibility", "collation", "column_add", "column_check", "column_create", "column_delete", "column_exists",
    "column_get", "column_json", "column_list", "compress", "concat", "concat_operator_oracle", "concat_ws",
    "connection_id", "contains", "conv", "convert", "convert_tz", "convexhull", "cot", "count", "crc32", "crc32c",
    "crosses", "cume_dist", "curdate", "current_date", "current_role", "current_role_in", "current_time",
    "current_timestamp", "current_user", "current_user_in", "curtime", "database", "date", "date_add", "date_format",
    "date_sub", "datediff", "day", "dayname", "dayofmonth", "dayofweek", "dayofyear", "decode", "decode_histogram",
    "decode_oracle", "degrees", "dense_rank", "des_decrypt", "des_encrypt", "dimension", "disjoint", "distance",
    "elt", "encode", "encrypt", "endpoint", "envelope", "equals", "etag", "exp", "export_set", "exteriorring",
    "extract", "extractvalue", "field", "find_in_set", "first_value", "floor", "fn", "format", "format_bytes",
    "format_pico_time", "from_base64", "from_days", "from_unixtime", "from_vector", "geomcollfromtext",
    "geomcollfromwkb", "geometrycollection", "geometrycollectionfromtext", "geometrycollectionfromwkb",
    "geometryfromtext", "geometryfromwkb", "geometryn", "geometrytype", "geomfromtext", "geomfromwkb", "glength",
    "greatest", "group_concat", "grouping", "gtid_subset", "gtid_subtract", "hex", "hour", "if", "ifnull", "inet4",
    "inet6", "inet6_aton", "inet6_ntoa", "inet_aton", "inet_ntoa", "insert", "instr", "interiorringn", "intersects",
    "interval", "is_free_lock", "is_ipv4", "is_ipv4_compat", "is_ipv4_mapped", "is_ipv6", "is_used_lock", "is_uuid",
    "is_visible_dd_object", "isclosed", "isempty", "isnull", "isring", "issimple", "json", "json_array",
    "json_array_append", "json_array_insert", "json_array_intersect", "json_arrayagg", "json_compact",
    "json_contains", "json_contains_path", "json_depth", "json_detailed", "json_duality_object", "json_equals",
    "json_exists", "json_extract", "json_insert", "json_key_value", "json_keys", "json_length", "json_loose",
    "json_merge", "json_merge_patch", "json_merge_preserve", "json_normalize", "json_object",
    "json_object_filter_keys", "json_object_to_array", "json_objectagg", "json_objectfilterkeys", "json_overlaps",
    "json_pretty", "json_query", "json_quote", "json_remove", "json_replace", "json_schema_valid",
    "json_schema_validation_report", "json_search", "json_set", "json_storage_free", "json_storage_size",
    "json_table", "json_type", "json_unquote", "json_valid", "json_value", "kdf", "lag", "last_day", "last_value",
    "lcase", "lead", "least", "left", "length", "lengthb", "linefromtext", "linefromwkb", "linestring",
    "linestringfromtext", "linestringfromwkb", "ln", "load_file", "localtime", "localtimestamp", "locate", "log",
    "log10", "log2", "lower", "lpad", "lpad_oracle", "ltrim", "ltrim_oracle", "make_set", "makedate", "maketime",
    "master_gtid_wait", "master_pos_wait", "match", "max", "mbrcontains", "mbrcoveredby", "mbrcovers", "mbrdisjoint",
    "mbrequal", "mbrequals", "mbrintersects", "mbroverlaps", "mbrtouches", "mbrwithin", "md5", "median", "member",
    "microsecond", "mid", "min", "minute", "mlinefromtext", "mlinefromwkb", "mod", "month", "monthname",
    "months_between", "mpointfromtext", "mpointfromwkb", "mpolyfromtext", "mpolyfromwkb", "multilinestring",
    "multilinestringfromtext", "multilinestringfromwkb", "multipoint", "multipointfromtext", "multipointfromwkb",
    "multipolygon", "multipolygonfromtext", "multipolygonfromwkb", "natural_sort_key", "now", "nth_value", "ntile",
    "nullif", "numgeometries", "numinteriorrings", "numpoints", "nvl", "nvl2", "oct", "octet_length", "old_password",
    "ord", "overlaps", "password", "percent_rank", "percentile_cont", "percentile_disc", "period_add", "period_diff",
    "pi", "point", "pointfromtext", "pointfromwkb", "pointn", "polyfromtext", "polyfromwkb", "polygon",
    "polygonfromtext", "polygonfromwkb", "position", "pow", "power", "ps_current_thread_id", "ps_thread_id",
    "quarter", "quote", "radians", "rand", "random_bytes", "rank", "regexp_instr", "regexp_like", "regexp_replace",
    "regexp_substr", "repeat", "replace", "replace_oracle", "reverse", "right", "roles_graphml", "round", "row",
    "row_number", "rownum", "rpad", "rpad_oracle", "rtrim", "rtrim_oracle", "schema", "sec_to_time", "second",
    "session_user", "sformat", "sha", "sha1", "sha2", "sign", "sleep", "soundex", "source_pos_wait", "space", "sqrt",
    "srid", "st_area", "st_asbinary", "st_asgeojson", "st_astext", "st_aswkb", "st_aswkt", "st_boundary", "st_buffer",
    "st_buffer_strategy", "st_centroid", "st_collect", "st_contains", "st_convexhull", "st_crosses", "st_difference",
    "st_dimension", "st_disjoint", "st_distance", "st_distance_sphere", "st_dwithin", "st_endpoint", "st_envelope",
    "st_equals", "st_exteriorring", "st_frechetdistance", "st_geohash", "st_geomcollfromtext", "st_geomcollfromtxt",
    "st_geomcollfromwkb", "st_geometrycollectionfromtext", "st_geometrycollectionfromwkb", "st_geometryfromtext",
    "st_geometryfromwkb", "st_geometryn", "st_geometrytype", "st_geomfromgeojson", "st_geomfromtext",
    "st_geomfromwkb", "st_hausdorffdistance", "st_interiorringn", "st_intersection", "st_intersects", "st_isclosed",
    "st_isempty", "st_isring", "st_issimple", "st_isvalid", "st_latfromgeohash", "st_latitude", "st_length",
    "st_linefromtext", "st_linefromwkb", "st_lineinterpolatepoint", "st_lineinterpolatepoints",
    "st_linestringfromtext", "st_linestringfromwkb", "st_longfromgeohash", "st_longitude", "st_makeenvelope",
    "st_mlinefromtext", "st_mlinefromwkb", "st_mpointfromtext", "st_mpointfromwkb", "st_mpolyfromtext",
    "st_mpolyfromwkb", "st_multilinestringfromtext", "st_multilinestringfromwkb", "st_multipointfromtext",
    "st_multipointfromwkb", "st_multipolygonfromtext", "st_multipolygonfromwkb", "st_numgeometries",
    "st_numinteriorring", "st_numinteriorrings", "st_numpoints", "st_overlaps", "st_pointatdistance",
    "st_pointfromgeohash", "st_pointfromtext", "st_pointfromwkb", "st_pointn", "st_pointonsurface", "st_polyfromtext",
    "st_polyfromwkb", "st_polygonfromtext", "st_polygonfromwkb", "st_relate", "st_simplify", "st_srid",
    "st_startpoint", "st_swapxy", "st_symdifference", "st_touches", "st_transform", "st_union", "st_validate",
    "st_within", "st_x", "st_y", "startpoint", "statement_digest", "statement_digest_text", "std", "stddev",
    "stddev_pop", "stddev_samp", "str_to_date", "strcmp", "string_to_vector", "subdate", "substr", "substr_oracle",
    "substring", "substring_index", "subtime", "sum", "sys_guid", "sysdate", "system_user", "time", "time_to_sec",
    "timediff", "timestamp", "timestampadd", "timestampdiff", "to_base64", "to_char", "to_date", "to_days",
    "to_number", "to_seconds", "to_vector", "touches", "trim", "trim_oracle", "trt_begin_ts", "trt_commit_id",
    "trt_commit_ts", "trt_iso_level", "trt_trx_id", "trt_trx_sees", "trt_trx_sees_eq", "trunc", "truncate", "ucase",
    "uncompress", "uncompressed_length", "unhex", "unix_timestamp", "updatexml", "upper", "user", "utc_date",
    "utc_time", "utc_timestamp", "uuid", "uuid_short", "uuid_to_bin", "uuid_v4", "uuid_v7",
    "validate_password_strength", "value", "values", "var_pop", "var_samp", "variance", "vec_distance",
    "vec_distance_cosine", "vec_distance_euclidean", "vec_fromtext", "vec_totext", "vector_dim", "vector_distance",
    "vector_to_string", "version", "wait_for_executed_gtid_set", "wait_until_sql_thread_after_gtids", "week",
    "weekday", "weekofyear", "weight_string", "within", "wsrep_sync_wait_upto_gtid", "x", "xmltype", "y", "year",
    "years", "yearweek",
];

/// Words of the language and types that a parenthesis may follow. Sorted.
#[rustfmt::skip]
const KEYWORDS: &[&str] = &[
    "accessible", "action", "add", "after", "against", "all", "alter", "always", "analyse", "analyze", "and", "any",
    "array", "as", "asc", "at", "auto_increment", "before", "begin", "between", "bigint", "binary", "bit", "blob",
    "bool", "boolean", "both", "btree", "by", "call", "cascade", "case", "change", "character", "check", "checksum",
    "cluster", "clustering", "collate", "column", "columns", "comment", "compression", "connection", "constraint",
    "create", "cross", "cube", "data", "datetime", "dec", "decimal", "default", "delete", "desc", "describe",
    "distinct", "distinctrow", "div", "do", "double", "drop", "duplicate", "each", "else", "elseif", "empty", "end",
    "enum", "error", "escape", "event", "except", "exclude", "execute", "exists", "explain", "extended", "false",
    "fields", "first", "fixed", "float", "float4", "float8", "following", "for", "force", "foreign", "from", "full",
    "fulltext", "function", "general", "geomcollection", "geometry", "global", "grant", "group", "groups", "hash",
    "having", "hidden", "high_priority", "ignore", "in", "include", "index", "infile", "inner", "inout", "int",
    "int1", "int2", "int3", "int4", "int8", "integer", "intersect", "into", "invisible", "is", "join", "key", "keys",
    "kill", "lateral", "leading", "like", "limit", "linear", "lines", "list", "lists", "load", "lock", "long",
    "longblob", "longtext", "low_priority", "maxvalue", "mediumblob", "mediumint", "mediumtext", "merge", "minus",
    "minvalue", "modify", "natural", "nchar", "nested", "next", "no", "not", "null", "number", "numeric", "nvarchar",
    "of", "offset", "on", "only", "or", "order", "ordinality", "out", "outer", "outfile", "over", "partition",
    "partitions", "path", "persistent", "preceding", "precision", "previous", "primary", "privileges", "procedure",
    "qualify", "quick", "range", "raw", "real", "recursive", "references", "regexp", "rename", "require", "restrict",
    "return", "returning", "revoke", "rlike", "rollup", "rows", "rtree", "schemas", "select", "separator", "serial",
    "session", "set", "share", "show", "signal", "smallint", "some", "soname", "sounds", "spatial", "sql_big_result",
    "sql_buffer_result", "sql_cache", "sql_calc_found_rows", "sql_no_cache", "sql_small_result", "starting",
    "storage", "stored", "straight_join", "subpartition", "subpartitions", "system_time", "table", "tables",
    "temporary", "terminated", "text", "than", "then", "tinyblob", "tinyint", "tinytext", "to", "trailing", "trigger",
    "true", "union", "unique", "unknown", "unlock", "unsigned", "update", "usage", "use", "using", "varbinary",
    "varchar", "varchar2", "varcharacter", "varying", "vector", "versioning", "view", "virtual", "visible", "wait",
    "when", "where", "while", "window", "with", "without", "work", "write", "xor", "zerofill",
];

/// The longest of them.
const BYTES_MAX: usize = 33;

/// The word, not quoted, is one of these.
pub(super) fn is_known(word: &[u8]) -> bool {
    let mut lower = [0; BYTES_MAX];
    let Some(lower) = lower.get_mut(..word.len()) else { return false };
    lower.copy_from_slice(word);
    lower.make_ascii_lowercase();
    let is_in = |names: &[&str]| names.binary_search_by(|name| name.as_bytes().cmp(lower)).is_ok();
    is_in(FUNCTIONS) || is_in(KEYWORDS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lists_are_sorted_and_found() {
        assert!(FUNCTIONS.is_sorted() && KEYWORDS.is_sorted());
        let all = || FUNCTIONS.iter().chain(KEYWORDS);
        assert_eq!(all().map(|name| name.len()).max(), Some(BYTES_MAX));
        for name in all() {
            assert!(is_known(name.as_bytes()) && is_known(name.to_ascii_uppercase().as_bytes()));
        }
        for name in [
            "",
            "get_lock",
            "release_lock",
            "last_insert_id",
            "sets_tenant",
            "a_name_that_is_longer_than_any_other_there_is",
        ] {
            assert!(!is_known(name.as_bytes()), "{name}");
        }
    }
}
