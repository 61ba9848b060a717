//! The classification of a reply: what it says about the recipient.

use super::{
    failure::{FailureReason, FailureType},
    phrases::reason_in_text,
    reply::Reply,
};

/// What a reply says about the recipient: why the attempt failed, and what that means.
///
/// Enhanced code and text both count, because servers use 5.x.x for their own policy as often as
/// for the recipient. The text beats the code, with one exception. A text that says "unknown" does
/// not count if the code blames the sender, the domain or the network.
pub fn classify(reply: &Reply) -> (FailureReason, FailureType) {
    use FailureReason::{AccountDisabled, InvalidDomain, None, Refused, Unreachable, UserUnknown};
    if reply.is_positive() {
        return (None, FailureType::Ignored);
    }
    let text = words(&reply.text);
    let coded = by_enhanced_code(reply);
    let reason = match (reason_in_text(&text), coded) {
        // "SPF record does not exist", "domain does not exist": the code says who is meant.
        (Some(UserUnknown), Some(milder @ (Refused | InvalidDomain | Unreachable))) => milder,
        (Some(said), _) => said,
        (Option::None, _) => {
            by_provider(reply, &text).or(coded).unwrap_or_else(|| by_code(reply.code))
        }
    };
    let permanent = reply.code >= 500 && !reply.is_transient();
    let failure_type = match reason {
        UserUnknown | AccountDisabled | Refused if permanent => FailureType::Hard,
        _ => FailureType::Soft,
    };
    (reason, failure_type)
}

/// The text in lower case, without addresses and links: these may contain any phrase.
fn words(text: &str) -> String {
    let mut words = String::with_capacity(text.len() + 1);
    for word in text.split_whitespace() {
        let word = word.to_lowercase();
        if !word.contains('@') && !word.contains("://") {
            words.push_str(&word);
            words.push(' ');
        }
    }
    words
}

/// Refusals that mean an unknown user at some providers only: "mailbox unavailable" at Outlook.com
/// and GMX, 5.4.1 with "access denied" at Exchange Online.
fn by_provider(reply: &Reply, text: &str) -> Option<FailureReason> {
    let unknown = match reply.enhanced {
        None | Some((5, 5, 0)) => text.contains("mailbox unavailable"),
        Some((5, 4, 1)) => text.contains("recipient address rejected: access denied"),
        _ => false,
    };
    (reply.code == 550 && unknown).then_some(FailureReason::UserUnknown)
}

/// The reason by the enhanced code: RFC 3463, section 3, as the large providers use it.
fn by_enhanced_code(reply: &Reply) -> Option<FailureReason> {
    use FailureReason::{
        AccountDisabled, InvalidDomain, MailboxFull, NotDefined, Refused, Unreachable, UserUnknown,
    };
    let (_, subject, detail) = reply.enhanced?;
    Some(match (subject, detail) {
        (1, 1 | 6 | 10) => UserUnknown,
        (1, 2) => InvalidDomain,
        (1, 7..=9) => Refused,
        (1, _) => NotDefined,
        (2, 1) => AccountDisabled,
        (2, 2) => MailboxFull,
        (2, 3) | (3, 4) | (4, 5) => Refused,
        (3 | 4, _) => Unreachable,
        (5..=7, _) => Refused,
        _ => return None,
    })
}

/// The reason by the three-digit code alone.
fn by_code(code: u16) -> FailureReason {
    match code {
        421 => FailureReason::Unreachable,
        521 | 556 => FailureReason::InvalidDomain,
        530 | 534 | 535 | 538 => FailureReason::Refused,
        551 => FailureReason::UserUnknown,
        552 => FailureReason::MailboxFull,
        _ => FailureReason::NotDefined,
    }
}

#[cfg(test)]
mod tests {
    use self::{
        FailureReason::{
            AccountDisabled, InvalidDomain, MailboxFull, NotDefined, Refused, Unreachable,
            UserUnknown,
        },
        FailureType::{Hard, Soft},
    };
    use super::*;

    #[rustfmt::skip]
    const REAL: [(&str, FailureReason, FailureType); 53] = [
        // Gmail
        ("550-5.1.1 The email account that you tried to reach does not exist. Please \
          try\r\n550-5.1.1 double-checking the recipient's email address for typos or\r\n550 5.1.1 \
          unnecessary spaces. For more information, go to \
          https://support.google.com/mail/?p=NoSuchUser a1-2 - gsmtp", UserUnknown, Hard),
        ("550 5.2.1 The email account that you tried to reach is disabled. For more information, \
          go to https://support.google.com/mail/?p=DisabledUser - gsmtp", AccountDisabled, Hard),
        ("550 5.2.1 The email account that you tried to reach is inactive. - gsmtp",
         AccountDisabled, Hard),
        ("452-4.2.2 The recipient's inbox is out of storage space. Please direct the\r\n452 4.2.2 \
          recipient to https://support.google.com/mail/?p=OverQuotaTemp - gsmtp",
         MailboxFull, Soft),
        ("552-5.2.2 The recipient's inbox is out of storage space and inactive.\r\n552 5.2.2 - \
          gsmtp", MailboxFull, Soft),
        ("550-5.7.26 This mail has been blocked because the sender is unauthenticated.\r\n550 \
          5.7.26 Gmail requires all senders to authenticate with either SPF or DKIM. - gsmtp",
         Refused, Hard),
        ("550-5.7.1 [192.0.2.1] Our system has detected that this message is likely unsolicited \
          mail.\r\n550 5.7.1 - gsmtp", Refused, Hard),
        ("421-4.7.28 Gmail has detected an unusual rate of unsolicited mail originating from your \
          IP.\r\n421 4.7.28 - gsmtp", Refused, Soft),
        ("450 4.2.1 The user you are trying to contact is receiving mail too quickly. - gsmtp",
         Refused, Soft),
        ("550 5.4.5 Daily user sending quota exceeded. - gsmtp", Refused, Hard),
        ("552 5.7.0 This message was blocked because its content presents a potential security \
          issue. - gsmtp", Refused, Hard),
        ("553 5.1.2 We weren't able to find the recipient domain. - gsmtp", InvalidDomain, Soft),
        ("421 4.3.0 Temporary System Problem. Try again later (1). - gsmtp", Unreachable, Soft),
        ("550 5.5.3 Too many recipients for this sender. - gsmtp", Refused, Soft),
        // Microsoft
        ("550 5.5.0 Requested action not taken: mailbox unavailable (S2017062302). \
          [AM7EUR03FT024.eop-EUR03.prod.protection.outlook.com]", UserUnknown, Hard),
        ("550 5.4.1 Recipient address rejected: Access denied. AS(201806281) \
          [DB5EUR03FT030.eop-EUR03.prod.protection.outlook.com]", UserUnknown, Hard),
        ("550 5.1.10 RESOLVER.ADR.RecipientNotFound; Recipient jane@contoso.example not found by \
          SMTP address lookup", UserUnknown, Hard),
        ("550 5.1.1 RESOLVER.ADR.RecipNotFound; not found", UserUnknown, Hard),
        ("550 5.7.515 Access denied, sending domain EXAMPLE.COM does not meet the required \
          authentication level.", Refused, Hard),
        ("550 5.7.1 Unfortunately, messages from [192.0.2.1] weren't sent. Please contact your \
          Internet service provider since part of their network is on our block list (S3150).",
         Refused, Hard),
        ("451 4.7.650 The mail server [192.0.2.1] has been temporarily rate limited due to IP \
          reputation.", Refused, Soft),
        ("554 5.2.2 mailbox full; \
          STOREDRV.Deliver.Exception:QuotaExceededException.MapiExceptionShutoffQuotaExceeded",
         MailboxFull, Soft),
        ("550 5.7.509 Access denied, sending domain example.com does not pass DMARC verification \
          and has a DMARC policy of reject.", Refused, Hard),
        ("550 5.7.124 RESOLVER.RST.SendersNotInAllowedSendersList; not in list", Refused, Hard),
        ("451 4.7.500 Server busy. Please try again later from [192.0.2.1]. (S77719)",
         Refused, Soft),
        ("550 5.4.310 DNS domain contoso.example does not exist [Message=InfoDomainNonexistent]",
         Unreachable, Soft),
        ("550 5.7.1 SPF record for example.com does not exist", Refused, Hard),
        ("550 5.1.2 The domain contoso.example does not exist", InvalidDomain, Soft),
        // Yahoo
        ("554 delivery error: dd This user doesn't have a yahoo.com account (jane@yahoo.com) [0] - \
          mta1.mail.ne1.yahoo.com", UserUnknown, Hard),
        ("552 1 Requested mail action aborted, mailbox not found", UserUnknown, Hard),
        ("554 30 Sorry, your message to jane@yahoo.com cannot be delivered. This mailbox is \
          disabled (554.30).", AccountDisabled, Hard),
        ("552 5.2.2 Mailbox full", MailboxFull, Soft),
        ("421 4.7.0 [TSS04] Messages from 192.0.2.1 temporarily deferred due to unexpected volume \
          or user complaints - 4.16.55.1", Refused, Soft),
        ("553 5.7.2 [TSS09] All messages from 192.0.2.1 will be permanently deferred; Retrying \
          will NOT succeed.", Refused, Hard),
        ("554 5.7.9 Message not accepted for policy reasons. See \
          https://postmaster.yahooinc.com/error-codes", Refused, Hard),
        ("451 Resources temporarily unavailable. Please try again later [#4.16.5].",
         Unreachable, Soft),
        // Postfix
        ("550 5.1.1 <jane@example.org>: Recipient address rejected: User unknown in local \
          recipient table", UserUnknown, Hard),
        ("550 5.1.1 <spam.policy@example.org>: Recipient address rejected: User unknown in virtual \
          mailbox table", UserUnknown, Hard),
        ("450 4.1.1 <jane@example.org>: Recipient address rejected: unverified address: unknown \
          user", UserUnknown, Soft),
        ("450 4.1.2 <jane@nowhere.example>: Recipient address rejected: Domain not found",
         InvalidDomain, Soft),
        ("550 5.1.8 <news@nowhere.example>: Sender address rejected: Domain not found",
         Refused, Hard),
        ("554 5.7.1 <jane@example.org>: Relay access denied", Refused, Hard),
        ("450 4.2.0 <jane@example.org>: Recipient address rejected: Greylisted, see \
          http://postgrey.schweikert.ch/help/example.org.html", Refused, Soft),
        ("552 5.3.4 Message size exceeds fixed limit", Refused, Hard),
        ("452 4.3.1 Insufficient system storage", Unreachable, Soft),
        ("554 5.7.1 Service unavailable; Client host [192.0.2.1] blocked using zen.spamhaus.org",
         Refused, Hard),
        ("504 5.5.2 <localhost>: Helo command rejected: need fully-qualified hostname",
         Refused, Hard),
        // Exim
        ("550 No Such User Here", UserUnknown, Hard),
        ("550 Unrouteable address", NotDefined, Soft),
        ("550 all relevant MX records point to non-existent hosts", InvalidDomain, Soft),
        ("550 Administrative prohibition", Refused, Hard),
        ("451 Temporary local problem - please try later", NotDefined, Soft),
        ("550 Sender verify failed", Refused, Hard),
    ];

    #[test]
    fn real_replies_are_classified_by_code_and_text() {
        for (text, reason, kind) in REAL {
            let reply = Reply::parse(text).expect(text);
            assert_eq!(classify(&reply), (reason, kind), "{text}");
        }
    }

    #[test]
    fn too_many_recipients_is_transient_even_as_a_5xx() {
        let reply = |text| Reply::parse(text).expect(text);
        assert!(reply("550 5.5.3 Too many recipients").is_transient());
        assert!(reply("554 too many recipients").is_transient());
        assert!(!reply("550 5.1.1 User unknown").is_transient());
        assert!(reply("421 bye").is_transient());
    }
}
