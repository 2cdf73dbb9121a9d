//! Which names a text calls (`name (`), as far as they are none of SQL's own or the server's best known ones.
//!
//! A table's or a type's name may look like a call (`CREATE TABLE t (...)`); none that is one is left out, if it is written.

/// Names that a text may call; one that has more is taken for code.
pub(super) const CALLS_MAX: usize = 100;

/// Words that stand before a parenthesis and are no functions of anybody's; and functions of the server's that change
/// nothing, the most common ones. Sorted. A function of that name in another schema is called with its schema, or not at
/// all: `pg_catalog` comes first wherever `search_path` does not say otherwise.
const PLAIN: &[&str] = &[
    "abs",
    "all",
    "analyse",
    "analyze",
    "and",
    "any",
    "array",
    "array_agg",
    "array_length",
    "as",
    "avg",
    "between",
    "bit",
    "bool_and",
    "bool_or",
    "by",
    "cast",
    "ceil",
    "char",
    "character",
    "check",
    "cluster",
    "coalesce",
    "concat",
    "concat_ws",
    "copy",
    "count",
    "cube",
    "current_setting",
    "date_part",
    "date_trunc",
    "decimal",
    "default",
    "dense_rank",
    "distinct",
    "else",
    "every",
    "except",
    "exists",
    "explain",
    "extract",
    "filter",
    "first_value",
    "float",
    "floor",
    "format",
    "from",
    "generate_series",
    "greatest",
    "grouping",
    "having",
    "in",
    "include",
    "intersect",
    "interval",
    "join",
    "json_agg",
    "json_build_object",
    "jsonb_agg",
    "jsonb_build_object",
    "key",
    "lag",
    "last_value",
    "lateral",
    "lead",
    "least",
    "left",
    "length",
    "like",
    "limit",
    "lower",
    "lpad",
    "ltrim",
    "materialized",
    "max",
    "md5",
    "min",
    "mod",
    "not",
    "now",
    "nullif",
    "numeric",
    "offset",
    "on",
    "or",
    "over",
    "overlay",
    "partition",
    "pg_backend_pid",
    "pg_sleep",
    "position",
    "power",
    "random",
    "rank",
    "references",
    "regexp_replace",
    "reindex",
    "replace",
    "returning",
    "right",
    "rollup",
    "round",
    "row",
    "row_number",
    "row_to_json",
    "rpad",
    "rtrim",
    "select",
    "set",
    "some",
    "split_part",
    "sqrt",
    "string_agg",
    "strpos",
    "substr",
    "substring",
    "sum",
    "then",
    "time",
    "timestamp",
    "to_char",
    "to_date",
    "to_jsonb",
    "to_number",
    "to_timestamp",
    "treat",
    "trim",
    "trunc",
    "union",
    "unique",
    "unnest",
    "upper",
    "using",
    "vacuum",
    "values",
    "varchar",
    "varying",
    "version",
    "when",
    "where",
    "with",
    "within",
    "xmlagg",
];

/// The longest of them.
const PLAIN_BYTES_MAX: usize = 18;

/// The word, not quoted, is one of these.
pub(super) fn is_plain(word: &[u8]) -> bool {
    let mut lower = [0; PLAIN_BYTES_MAX];
    let Some(lower) = lower.get_mut(..word.len()) else { return false };
    lower.copy_from_slice(word);
    lower.make_ascii_lowercase();
    PLAIN.binary_search_by(|plain| plain.as_bytes().cmp(lower)).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_list_is_sorted_and_found() {
        assert!(PLAIN.is_sorted());
        assert_eq!(PLAIN.iter().map(|plain| plain.len()).max(), Some(PLAIN_BYTES_MAX));
        for plain in PLAIN {
            assert!(is_plain(plain.as_bytes()) && is_plain(plain.to_ascii_uppercase().as_bytes()));
        }
        assert!(!is_plain(b"") && !is_plain(b"sets_tenant") && !is_plain(b"a_name_that_is_longer_than_any"));
    }
}
