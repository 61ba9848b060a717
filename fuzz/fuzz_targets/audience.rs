//! The audience reader gives the same result, however an upload is cut into pieces.
//!
//! The result is the same recipients, or the same error with a line that exists.
#![no_main]

use libfuzzer_sys::fuzz_target;
use versand::domain::audience::{AudienceFormat, AudienceReader, LineError, Recipient};

const LONGEST_LINE: usize = 4096;

fn read(format: AudienceFormat, upload: &[u8], piece: usize) -> Result<Vec<Recipient>, LineError> {
    let (mut reader, mut recipients) = (AudienceReader::new(format, LONGEST_LINE), Vec::new());
    for bytes in upload.chunks(piece) {
        reader.push(bytes, &mut recipients)?;
    }
    reader.finish(&mut recipients)?;
    Ok(recipients)
}

fuzz_target!(|input: &[u8]| {
    let [choice, upload @ ..] = input else { return };
    let format = if choice % 2 == 0 { AudienceFormat::Ndjson } else { AudienceFormat::Csv };
    let whole = read(format, upload, usize::MAX);
    assert_eq!(whole, read(format, upload, 1 + usize::from(choice / 2)), "cut into pieces");
    let lines = 1 + upload.iter().filter(|byte| matches!(byte, b'\n' | b'\r')).count() as u64;
    match whole {
        Ok(recipients) => {
            assert!(recipients.iter().all(|recipient| (1..=lines).contains(&recipient.line)))
        }
        Err(error) => assert!((1..=lines).contains(&error.line), "{error}"),
    }
});
