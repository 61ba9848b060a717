//! What a stranger with few rights may try, and what must come of it.

mod templates;
