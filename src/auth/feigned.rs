//! What those are asked for who do not exist: something that is asked of others, always the same for the same name.
//!
//! Each way of asking draws a number for each name, and the highest wins: a way that is new changes what the fewest names are
//! asked for, and the others stay as they are.

use std::collections::BTreeSet;

use aws_lc_rs::hmac;

use super::users;
use crate::config::AuthMethod;
use crate::protocol::{Credentials, ITERATIONS, Proof, SALT_BYTES, ScramSecret};

/// Ways that are remembered; verifiers of a database have one or two, and no more than these can be told apart by asking.
const FORMS_MAX: usize = 8;

/// How a verifier in a database looks to who must prove it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Form {
    Scram { iterations: u32, salt_bytes: usize },
    Md5,
}

/// The ways in which users of a database have been asked.
#[derive(Debug, Clone, Default)]
pub struct Forms(BTreeSet<Form>);

impl Forms {
    /// Somebody is asked for this.
    pub fn seen(&mut self, proof: &Proof) {
        let form = match proof {
            Proof::Scram(secret) => Form::Scram { iterations: secret.iterations, salt_bytes: secret.salt.len() },
            Proof::Md5(_) => Form::Md5,
            Proof::Password | Proof::Challenge(_) | Proof::Certificate(_) => return,
        };
        if self.0.len() < FORMS_MAX {
            self.0.insert(form);
        }
    }
}

/// One of the endpoint's ways, for this name.
pub(super) fn method(key: &hmac::Key, methods: &[AuthMethod], user: &str) -> AuthMethod {
    chosen(key, methods, user).unwrap_or(AuthMethod::ScramSha256)
}

/// Something nobody can prove, asked for in one of the database's ways.
pub(super) fn credentials(key: &hmac::Key, forms: &Forms, user: &str) -> Credentials {
    let forms: Vec<Form> = forms.0.iter().copied().collect();
    let usual = Form::Scram { iterations: ITERATIONS.get(), salt_bytes: SALT_BYTES };
    let mut secret = ScramSecret::mock(key, user);
    let proof = match chosen(key, &forms, user).unwrap_or(usual) {
        Form::Scram { iterations, salt_bytes } => {
            secret.iterations = iterations;
            // As long as theirs: more of the same kind of bytes, or fewer.
            let more = hmac::sign(key, format!("more salt {user}").as_bytes());
            secret.salt = secret.salt.iter().chain(more.as_ref()).copied().cycle().take(salt_bytes).collect();
            Proof::Scram(secret)
        }
        Form::Md5 => Proof::Md5(users::hex(&secret.stored_key)),
    };
    Credentials { proof, known: false }
}

fn chosen<T: Copy + std::fmt::Debug>(key: &hmac::Key, ways: &[T], user: &str) -> Option<T> {
    let draw = |way: &&T| hmac::sign(key, format!("{way:?} for {user}").as_bytes()).as_ref().to_vec();
    ways.iter().max_by_key(draw).copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(byte: u8) -> hmac::Key {
        hmac::Key::new(hmac::HMAC_SHA256, &[byte; 32])
    }

    fn scram(iterations: u32, salt: &[u8]) -> Proof {
        Proof::Scram(ScramSecret { salt: salt.to_vec(), iterations, stored_key: [0; 32], server_key: [0; 32] })
    }

    /// What a client sees of what it is asked for.
    fn shown(forms: &Forms, user: &str) -> (u32, Vec<u8>) {
        match credentials(&key(1), forms, user).proof {
            Proof::Scram(secret) => (secret.iterations, secret.salt),
            Proof::Md5(_) => (0, Vec::new()),
            Proof::Password | Proof::Challenge(_) | Proof::Certificate(_) => panic!(),
        }
    }

    #[test]
    fn who_does_not_exist_is_asked_as_those_who_do() {
        let mut forms = Forms::default();
        assert_eq!(shown(&forms, "ghost").0, 4096);
        assert_eq!(shown(&forms, "ghost").1.len(), 16);
        forms.seen(&scram(10_000, &[1; 24]));
        for ghost in ["ghost", "another"] {
            let (iterations, salt) = shown(&forms, ghost);
            assert_eq!((iterations, salt.len()), (10_000, 24));
            assert_eq!(shown(&forms, ghost).1, salt, "always the same");
        }
        assert_ne!(shown(&forms, "ghost").1, shown(&forms, "another").1);
        // A second way: some are asked so, and nobody whom it leaves where he was is asked for something else.
        let names: Vec<String> = (0..200).map(|number| format!("ghost{number}")).collect();
        let before: Vec<_> = names.iter().map(|name| shown(&forms, name)).collect();
        forms.seen(&Proof::Md5([b'0'; 32]));
        let after: Vec<_> = names.iter().map(|name| shown(&forms, name)).collect();
        let moved = after.iter().filter(|shown| shown.0 == 0).count();
        assert!((50..150).contains(&moved), "{moved}");
        assert!(before.iter().zip(&after).all(|(before, after)| after.0 == 0 || before == after));
        assert!(!credentials(&key(1), &forms, "ghost").known);
    }

    #[test]
    fn no_more_ways_are_kept_than_can_be() {
        let mut forms = Forms::default();
        (1..100).for_each(|iterations| forms.seen(&scram(iterations, b"salt")));
        forms.seen(&Proof::Password);
        assert_eq!(forms.0.len(), FORMS_MAX);
    }

    #[test]
    fn one_of_the_endpoints_methods() {
        use AuthMethod::{Iam, Md5, ScramSha256};
        let names: Vec<String> = (0..300).map(|number| format!("ghost{number}")).collect();
        let asked =
            |methods: &[AuthMethod]| names.iter().map(|name| method(&key(1), methods, name)).collect::<Vec<_>>();
        assert!(asked(&[]).iter().all(|method| *method == ScramSha256));
        let two = asked(&[ScramSha256, Iam]);
        assert_eq!(asked(&[Iam, ScramSha256]), two, "in whatever order");
        let three = asked(&[ScramSha256, Md5, Iam]);
        assert!([ScramSha256, Md5, Iam].iter().all(|method| three.iter().filter(|m| *m == method).count() > 50));
        assert!(two.iter().zip(&three).all(|(before, after)| *after == Md5 || before == after));
    }
}
