//! Inputs of logins: a byte that chooses, one that says where to cut, and what is said. They come to the same whether that is
//! said at once or in two pieces.

use std::fmt::Debug;

/// Plays an input both ways, to the same end unless the cut `decides`, by the first byte.
pub fn check<T: PartialEq + Debug>(data: &[u8], play: impl Fn(u8, &[&[u8]]) -> T, decides: impl Fn(u8) -> bool) {
    let Some((&[control, cut], input)) = data.split_first_chunk() else {
        return;
    };
    let at_once = play(control, &[input]);
    let (first, rest) = input.split_at(usize::from(cut).min(input.len()));
    let in_two = play(control, &[first, rest]);
    if !decides(control) {
        assert_eq!(at_once, in_two);
    }
}
