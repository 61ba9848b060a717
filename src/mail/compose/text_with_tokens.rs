//! A text with places for tokens, which can be encoded before the tokens are known.

use super::quoted_printable::{SOFT_BREAK, quoted_printable};
use crate::mail::links::{LinkPurpose, TokenSigner, placeholder};

/// A text, and the places in it where tokens are written.
#[derive(Debug, Default)]
pub struct TextWithTokens {
    text: String,
    places: Vec<TokenPlace>,
}

#[derive(Debug)]
struct TokenPlace {
    /// The byte of the text before which the token stands.
    at: usize,
    purpose: LinkPurpose,
    /// How many bytes of the token stand before a soft line break, if one falls into it.
    soft_break: Option<usize>,
}

impl TextWithTokens {
    /// Reads the placeholders in `source`.
    pub fn new(source: &str) -> Self {
        let mut this = Self::default();
        for (text, purpose) in placeholder::split(source) {
            this.text.push_str(text);
            this.places.extend(purpose.map(|purpose| TokenPlace {
                at: this.text.len(),
                purpose,
                soft_break: None,
            }));
        }
        this
    }

    /// The size in bytes, with tokens.
    pub fn bytes(&self) -> usize {
        self.text.len() + self.places.iter().map(|place| place.purpose.token_bytes()).sum::<usize>()
    }

    /// Appends the text with tokens. A text without placeholders needs no signer.
    pub fn write(&self, out: &mut String, signer: Option<&TokenSigner>) {
        let mut written = 0;
        for place in &self.places {
            out.push_str(&self.text[written..place.at]);
            written = place.at;
            let Some(signer) = signer else { continue };
            let start = out.len();
            signer.write(out, place.purpose);
            if let Some(soft_break) = place.soft_break {
                out.insert_str(start + soft_break, SOFT_BREAK);
            }
        }
        out.push_str(&self.text[written..]);
    }

    /// The same text in quoted-printable.
    ///
    /// The text is encoded twice, with two different tokens in each place. The encoding leaves
    /// every character of a token as it is. So the results differ exactly where tokens stand.
    pub fn encoded(&self) -> Self {
        let [one, other] = ["A", "B"].map(|letter| self.encoded_with(letter));
        let (mut encoded, mut places, mut left) = (Self::default(), self.places.iter(), 0);
        let mut at = 0;
        while at < one.len() {
            if one.as_bytes()[at] != other.as_bytes()[at] {
                if left == 0
                    && let Some(TokenPlace { purpose, .. }) = places.next()
                {
                    left = purpose.token_bytes();
                    encoded.places.push(TokenPlace {
                        at: encoded.text.len(),
                        purpose: *purpose,
                        soft_break: None,
                    });
                }
                left -= 1;
                at += 1;
            } else if let (Some(place), 1..) = (encoded.places.last_mut(), left) {
                place.soft_break = Some(place.purpose.token_bytes() - left);
                at += SOFT_BREAK.len();
            } else {
                encoded.text.push(char::from(one.as_bytes()[at]));
                at += 1;
            }
        }
        encoded.text.shrink_to_fit();
        encoded
    }

    /// The text in quoted-printable, with `letter` for each character of a token.
    fn encoded_with(&self, letter: &str) -> String {
        let (mut text, mut encoded, mut written) =
            (String::with_capacity(self.bytes()), String::new(), 0);
        for place in &self.places {
            text.push_str(&self.text[written..place.at]);
            text.push_str(&letter.repeat(place.purpose.token_bytes()));
            written = place.at;
        }
        text.push_str(&self.text[written..]);
        quoted_printable(&mut encoded, &text);
        encoded
    }
}
