//! The statements of an identity: may it connect as this user?
//!
//! A subset of IAM's policy language, with its rules: nothing is allowed by default, an Allow that fits is needed, a Deny
//! that fits wins. `*` stands for any text and `?` for one character, in actions (letter case does not matter) and
//! resources (it does). <https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_policies_evaluation-logic.html>

use crate::config::{Effect, StatementConfig};

/// The one action there is.
const CONNECT: &str = "rds-db:connect";

/// What the statements say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    Allowed,
    /// No statement allows it.
    NotAllowed,
    /// A statement denies it.
    Denied,
}

/// The name of a user of this proxy in policies.
pub(super) fn resource(region: &str, account: &str, resource_id: &str, user: &str) -> String {
    // As AWS names its partitions.
    let partition = match region {
        region if region.starts_with("cn-") => "aws-cn",
        region if region.starts_with("us-gov-") => "aws-us-gov",
        _ => "aws",
    };
    format!("arn:{partition}:rds-db:{region}:{account}:dbuser:{resource_id}/{user}")
}

pub(super) fn evaluate(statements: &[StatementConfig], resource: &str) -> Verdict {
    let mut verdict = Verdict::NotAllowed;
    for statement in statements {
        let acts = statement.actions.iter().any(|action| fits(&action.to_ascii_lowercase(), CONNECT));
        if acts && statement.resources.iter().any(|pattern| fits(pattern, resource)) {
            match statement.effect {
                Effect::Deny => return Verdict::Denied,
                Effect::Allow => verdict = Verdict::Allowed,
            }
        }
    }
    verdict
}

/// Whether the pattern fits the whole text. At most as many steps as the product of their lengths.
fn fits(pattern: &str, text: &str) -> bool {
    let (pattern, text): (Vec<char>, Vec<char>) = (pattern.chars().collect(), text.chars().collect());
    let (mut p, mut t) = (0, 0);
    // Where to go on if what follows the last star does not fit: the star, and how much it has taken.
    let mut star: Option<(usize, usize)> = None;
    while t < text.len() {
        match pattern.get(p) {
            Some('*') => {
                star = Some((p, t));
                p += 1;
            }
            Some(wanted) if *wanted == '?' || Some(wanted) == text.get(t) => {
                p += 1;
                t += 1;
            }
            _ => {
                let Some((at, taken)) = star else { return false };
                star = Some((at, taken + 1));
                (p, t) = (at + 1, taken + 1);
            }
        }
    }
    pattern.get(p..).unwrap_or_default().iter().all(|rest| *rest == '*')
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::{prop_assert_eq, proptest};

    fn statement(effect: Effect, actions: &[&str], resources: &[&str]) -> StatementConfig {
        let owned = |list: &[&str]| list.iter().map(|text| (*text).to_owned()).collect();
        StatementConfig { effect, actions: owned(actions), resources: owned(resources) }
    }

    const APP: &str = "arn:aws:rds-db:eu-central-1:123456789012:dbuser:prx-1/app";

    #[test]
    fn users_are_named_as_aws_does() {
        assert_eq!(resource("eu-central-1", "123456789012", "prx-1", "app"), APP);
        assert!(resource("cn-north-1", "1", "p", "a").starts_with("arn:aws-cn:rds-db:cn-north-1:1:"));
        assert!(resource("us-gov-west-1", "1", "p", "a").starts_with("arn:aws-us-gov:"));
    }

    #[test]
    fn deny_wins_and_nothing_is_allowed_by_default() {
        use Effect::{Allow, Deny};
        use Verdict::{Allowed, Denied, NotAllowed};
        let connect = &["rds-db:connect"][..];
        for (statements, expected) in [
            (vec![], NotAllowed),
            (vec![statement(Allow, connect, &[APP])], Allowed),
            (vec![statement(Allow, &["RDS-DB:Connect"], &[APP])], Allowed),
            (vec![statement(Allow, &["rds-db:*"], &["*"])], Allowed),
            (vec![statement(Allow, &["*"], &["arn:aws:rds-db:*:*:dbuser:prx-1/*"])], Allowed),
            (vec![statement(Allow, connect, &["arn:aws:rds-db:eu-central-1:123456789012:dbuser:prx-?/a?p"])], Allowed),
            (vec![statement(Allow, connect, &["arn:other", APP])], Allowed),
            (vec![statement(Allow, &["s3:GetObject", "rds-db:connect"], &[APP])], Allowed),
            (
                vec![statement(Allow, connect, &["arn:aws:rds-db:eu-central-1:123456789012:dbuser:prx-1/App"])],
                NotAllowed,
            ),
            (
                vec![statement(Allow, connect, &["arn:aws:rds-db:eu-central-1:123456789012:dbuser:prx-1/app2"])],
                NotAllowed,
            ),
            (
                vec![statement(Allow, connect, &["arn:aws:rds-db:eu-central-1:123456789012:dbuser:prx-1/ap"])],
                NotAllowed,
            ),
            (
                vec![statement(Allow, connect, &["arn:aws:rds-db:eu-central-1:123456789012:dbuser:prx-2/app"])],
                NotAllowed,
            ),
            (vec![statement(Allow, connect, &["arn:aws:rds-db:eu-west-1:123456789012:dbuser:prx-1/app"])], NotAllowed),
            (vec![statement(Allow, connect, &["arn:aws:rds-db:eu-central-1:1:dbuser:prx-1/app"])], NotAllowed),
            (vec![statement(Allow, connect, &["arn:aws:rds-db:eu-central-1:123456789012:dbuser:prx-1/?"])], NotAllowed),
            (vec![statement(Allow, &["rds:connect"], &[APP])], NotAllowed),
            (vec![statement(Allow, &["rds-db:connec"], &[APP])], NotAllowed),
            (vec![statement(Allow, &[], &[APP])], NotAllowed),
            (vec![statement(Allow, connect, &[])], NotAllowed),
            (vec![statement(Allow, connect, &["*"]), statement(Deny, connect, &[APP])], Denied),
            (vec![statement(Deny, connect, &["*/app"]), statement(Allow, connect, &["*"])], Denied),
            (vec![statement(Allow, connect, &["*"]), statement(Deny, connect, &["*/other"])], Allowed),
            (vec![statement(Deny, &["*"], &["*"])], Denied),
        ] {
            assert_eq!(evaluate(&statements, APP), expected, "{statements:?}");
        }
    }

    #[test]
    fn many_stars_take_no_time() {
        let pattern = "*a".repeat(1000) + "b";
        assert!(!fits(&pattern, &"a".repeat(10_000)));
    }

    proptest! {
        #[test]
        fn patterns_fit_as_the_plain_definition_says(pattern in "[ab?*]{0,8}", text in "[ab]{0,8}") {
            fn plain(pattern: &[u8], text: &[u8]) -> bool {
                match (pattern.split_first(), text.split_first()) {
                    (None, None) => true,
                    (Some((b'*', rest)), _) => {
                        plain(rest, text) || text.split_first().is_some_and(|(_, text)| plain(pattern, text))
                    }
                    (Some((wanted, pattern)), Some((found, text))) => {
                        (*wanted == b'?' || wanted == found) && plain(pattern, text)
                    }
                    _ => false,
                }
            }
            prop_assert_eq!(fits(&pattern, &text), plain(pattern.as_bytes(), text.as_bytes()));
        }
    }
}
