//! The users of Redis, as the documentation gives them to operators.

/// Their password in all tests.
pub const PASSWORD: &str = "the-test-has-it";

/// The rights of a user: the words after `ACL SETUSER` in its block of the documentation, with
/// [`PASSWORD`].
pub fn redis_user(name: &str) -> Vec<String> {
    let pages =
        [include_str!("../../../docs/operations.md"), include_str!("../../../docs/queue.md")];
    let start = format!("```\nACL SETUSER {name} ");
    let blocks: Vec<&str> = pages.iter().flat_map(|page| page.split(&start).skip(1)).collect();
    assert_eq!(blocks.len(), 1, "{name} must have one block in the documentation");
    let (rights, _) = blocks[0].split_once("```").expect("the end of the block");
    let words = rights.replace("PASSWORD", PASSWORD);
    [name].into_iter().chain(words.split_whitespace()).map(str::to_owned).collect()
}
