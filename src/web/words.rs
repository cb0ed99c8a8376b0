//! Every text of the pages, in English and German.
//!
//! What rules, transports and stores say of themselves stays English, as in the log; pages mark it
//! as such for screen readers.

use std::fmt;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Language {
    #[default]
    English,
    German,
}

impl Language {
    pub const ALL: [Language; 2] = [Language::English, Language::German];

    /// As in `lang="…"`.
    pub fn code(self) -> &'static str {
        match self {
            Language::English => "en",
            Language::German => "de",
        }
    }

    /// In that language.
    pub fn name(self) -> &'static str {
        match self {
            Language::English => "English",
            Language::German => "Deutsch",
        }
    }

    /// Of a tag such as `de-AT`.
    pub fn of_tag(tag: &str) -> Option<Language> {
        let primary = tag.split('-').next().unwrap_or(tag);
        Language::ALL
            .into_iter()
            .find(|language| language.code().eq_ignore_ascii_case(primary))
    }

    /// What `Accept-Language` likes best of what there is.
    pub fn accepted(header: &str) -> Option<Language> {
        accept_language::parse(header)
            .iter()
            .find_map(|tag| Language::of_tag(tag))
    }

    pub fn say(self, text: Text) -> &'static str {
        match self {
            Language::English => text.0,
            Language::German => text.1,
        }
    }

    /// With each `{}` replaced by the next value.
    pub fn fill(self, text: Text, values: &[&dyn fmt::Display]) -> String {
        let mut pieces = self.say(text).split("{}");
        let mut filled = pieces.next().unwrap_or_default().to_owned();
        for (piece, value) in pieces.zip(values) {
            filled.push_str(&value.to_string());
            filled.push_str(piece);
        }
        filled
    }

    /// How many of something.
    pub fn count(self, n: u64, [one, many]: [Text; 2]) -> String {
        self.fill(if n == 1 { one } else { many }, &[&n])
    }
}

/// One text: English, German.
#[derive(Debug, Clone, Copy)]
pub struct Text(pub &'static str, pub &'static str);

/// The outcome or stage of a delivery, by the word that spool, API and metrics use.
pub fn stage(word: &str) -> Text {
    match word {
        "accepted" => Text("not yet decided", "noch nicht entschieden"),
        "behind" => Text("behind an earlier one", "hinter einer früheren"),
        "waiting" => Text("waiting", "wartet"),
        "sending" => Text("being sent", "wird gesendet"),
        "alerted" => Text("alerted", "alarmiert"),
        "acknowledged" => Text("acknowledged", "bestätigt"),
        "resolved" => Text("resolved", "geschlossen"),
        "relayed" => Text("relayed by e-mail", "als E-Mail weitergegeben"),
        "suppressed" => Text("nothing to send", "nichts zu senden"),
        "dead-letter" => Text("dead letter", "unzustellbar"),
        _ => Text("unknown", "unbekannt"),
    }
}

pub fn event(word: &str) -> Text {
    match word {
        "new" => Text("new ticket", "neues Ticket"),
        "acknowledged" => Text("acknowledgement", "Bestätigung"),
        "resolved" => Text("close", "Schließung"),
        "update" => Text("update", "Änderung"),
        "ignore" => Text("to be ignored", "zu ignorieren"),
        _ => Text("unknown", "unbekannt"),
    }
}

pub fn attempt(word: &str) -> Text {
    match word {
        "delivered" => Text("taken", "angenommen"),
        "deferred" => Text("not now, tried again", "jetzt nicht, neuer Versuch"),
        "rejected" => Text("refused", "abgelehnt"),
        _ => Text("unknown", "unbekannt"),
    }
}

pub mod shell {
    use super::Text;
    pub const SKIP: Text = Text("Skip to the content", "Zum Inhalt");
    pub const PAGES: Text = Text("Pages", "Seiten");
    pub const NOW: Text = Text("Now", "Jetzt");
    pub const MAILS: Text = Text("Mails", "Mails");
    pub const TICKETS: Text = Text("Tickets", "Tickets");
    pub const DEAD_LETTERS: Text = Text("Dead letters", "Unzustellbar");
    pub const LANGUAGE: Text = Text("Language", "Sprache");
    pub const LOST: Text = Text(
        "No connection; what you see may be old",
        "Keine Verbindung; das Gezeigte ist vielleicht alt",
    );
    pub const TIMES: Text = Text(
        "Times are shown in this browser's zone, without JavaScript in UTC.",
        "Zeiten gelten in der Zone dieses Browsers, ohne JavaScript in UTC.",
    );
    pub const NOT_FOUND: Text = Text("There is no such page", "Diese Seite gibt es nicht");
    pub const NOT_FOUND_HINT: Text = Text(
        "The mail may have been removed after its time (spool.retention), or the address is wrong.",
        "Die Mail ist vielleicht nach Ablauf ihrer Zeit entfernt worden (spool.retention), oder die Adresse ist falsch.",
    );
    pub const REFUSED: Text = Text("That did not work", "Das ging nicht");
    pub const STORE_FAILS: Text = Text("The store does not answer", "Der Speicher antwortet nicht");
    pub const STORE_FAILS_HINT: Text = Text(
        "Mail is refused for now and comes again; what was accepted is safe. The store says:",
        "Mails werden vorerst abgewiesen und kommen wieder; Angenommenes ist sicher. Der Speicher sagt:",
    );
    pub const TO_NOW: Text = Text("To the overview", "Zur Übersicht");
}

pub mod now {
    use super::Text;
    pub const TITLE: Text = Text("Is it working?", "Läuft es?");
    pub const ALL_WELL: Text = Text("Yes. All is well.", "Ja. Alles in Ordnung.");
    pub const LOOK: Text = Text(
        "It works, but somebody should look.",
        "Es läuft, aber jemand sollte hinsehen.",
    );
    pub const BROKEN: Text = Text("No. Something is broken.", "Nein. Etwas ist kaputt.");

    pub const PARTS: Text = Text("Parts", "Teile");
    pub const DOOR: Text = Text("Door", "Eingang");
    pub const STORE: Text = Text("Store", "Speicher");
    pub const RULES: Text = Text("Rules", "Regeln");
    pub const WEBHOOK_OF: Text = Text("Webhook of {}", "Webhook von {}");
    pub const RELAY_OF: Text = Text("Relay of {}", "Relay von {}");
    pub const WORKS: Text = Text("works", "läuft");
    pub const WARNS: Text = Text("look at it", "ansehen");
    pub const FAILS: Text = Text("fails", "gestört");
    pub const DOOR_DOING: Text = Text(
        "{} connections open, {} mails since the start",
        "{} Verbindungen offen, {} Mails seit dem Start",
    );
    pub const STORING: Text = Text("mails are stored", "Mails werden gespeichert");
    pub const SENDING: Text = Text("no failure known", "keine Störung bekannt");
    pub const BACKLOG: Text = Text("on the way", "unterwegs");
    pub const DEAD: Text = Text("dead letters", "unzustellbar");
    pub const OLDEST: Text = Text("longest overdue", "am längsten überfällig");
    pub const OPEN: Text = Text("open tickets", "offene Tickets");
    pub const NOBODY_WAITS: Text = Text("none", "keine");
    pub const MAILS_PER_MINUTE: Text = Text("Mails per minute", "Mails pro Minute");
    pub const ALERTS_PER_MINUTE: Text = Text("Alerts per minute", "Alarme pro Minute");
    pub const CHART: Text = Text(
        "{} in the last hour, at most {} in a minute",
        "{} in der letzten Stunde, höchstens {} pro Minute",
    );
    pub const AGO_60: Text = Text("60 minutes ago", "vor 60 Minuten");
    pub const AGO_0: Text = Text("now", "jetzt");
    pub const PROBLEMS: Text = Text("What to look at", "Was anzusehen ist");
    pub const NO_PROBLEMS: Text = Text("Nothing.", "Nichts.");
    pub const LATEST: Text = Text("Latest mails", "Neueste Mails");
    pub const ALL_MAILS: Text = Text("All mails", "Alle Mails");
    pub const DEAD_ONE: [Text; 2] = [
        Text("1 mail reached nobody.", "1 Mail hat niemanden erreicht."),
        Text(
            "{} mails reached nobody.",
            "{} Mails haben niemanden erreicht.",
        ),
    ];
    pub const DEAD_DO: Text = Text(
        "Look at them, retry or drop",
        "Ansehen, erneut senden oder verwerfen",
    );
    pub const HINT_TRANSPORT: Text = Text(
        "Deliveries wait and leave by themselves when it works again. `mailbell doctor` says what is between here and there.",
        "Zustellungen warten und gehen von selbst hinaus, sobald es wieder läuft. `mailbell doctor` zeigt, was dazwischen steht.",
    );
    pub const HINT_RULES: Text = Text(
        "The rules before stay in force. `mailbell check` shows every problem with its line.",
        "Die vorherigen Regeln gelten weiter. `mailbell check` zeigt jedes Problem mit seiner Zeile.",
    );
    pub const HINT_CERTIFICATE: Text = Text(
        "Put a new pair in place; it is read without a restart.",
        "Ein neues Paar ablegen; es wird ohne Neustart gelesen.",
    );
    pub const HINT_STORE: Text = Text(
        "Senders are told to come again, so nothing is lost. Look at disk or database.",
        "Absender werden gebeten wiederzukommen, nichts geht verloren. Platte oder Datenbank ansehen.",
    );
    pub const HINT_DEGRADED: Text = Text(
        "It alerted with its raw subject. Its page shows which rule is missing.",
        "Sie hat mit ihrem rohen Betreff alarmiert. Ihre Seite zeigt, welche Regel fehlt.",
    );
    pub const DEGRADED: Text = Text("Not understood:", "Nicht verstanden:");
}

pub mod mails {
    use super::Text;
    pub const TITLE: Text = Text("Mails", "Mails");
    pub const SEARCH: Text = Text("Search", "Suchen");
    pub const WORDS: Text = Text(
        "Subject, ticket, address or id",
        "Betreff, Ticket, Adresse oder Kennung",
    );
    pub const SOURCE: Text = Text("Source", "Quelle");
    pub const TEAM: Text = Text("Team", "Team");
    pub const OUTCOME: Text = Text("Outcome", "Ergebnis");
    pub const EVENT: Text = Text("Event", "Ereignis");
    pub const ANY: Text = Text("any", "alle");
    pub const UNFINISHED: Text = Text("unfinished", "unfertig");
    pub const NONE: Text = Text("No mail fits.", "Keine Mail passt.");
    pub const NONE_YET: Text = Text(
        "No mail has come yet. `mailbell send FILE.eml` sends one.",
        "Noch ist keine Mail gekommen. `mailbell send DATEI.eml` sendet eine.",
    );
    pub const CLEAR: Text = Text("Clear the filter", "Filter aufheben");
    pub const OLDER: Text = Text("Older", "Ältere");
    pub const NEWEST: Text = Text("To the newest", "Zu den neuesten");
    pub const CUT: Text = Text(
        "Only the mails down to this one were searched. “Older” goes on from here.",
        "Nur die Mails bis hierher wurden durchsucht. „Ältere“ sucht von hier weiter.",
    );
    pub const NO_SUBJECT: Text = Text("(no subject)", "(kein Betreff)");
    pub const FROM: Text = Text("from", "von");
    pub const DEGRADED: Text = Text("not understood", "nicht verstanden");
}

pub mod tickets {
    use super::Text;
    pub const TITLE: Text = Text("Open tickets", "Offene Tickets");
    pub const NONE: Text = Text("No ticket is open.", "Kein Ticket ist offen.");
    pub const OPEN: Text = Text("open", "offen");
    pub const ACKNOWLEDGED: Text = Text("acknowledged", "bestätigt");
    pub const TEAM: Text = Text("team", "Team");
    pub const IN_SUMMARY: Text = Text("in the summary", "in der Sammelmeldung");
    pub const ITS_MAILS: Text = Text("its mails", "seine Mails");
    pub const SINCE: Text = Text("open for", "offen seit");
    pub const CHANGED: Text = Text("changed", "geändert");
    pub const NEWEST: Text = Text("To the last changed", "Zu den zuletzt geänderten");
    pub const OLDER: Text = Text("Longer unchanged", "Länger unverändert");
}

pub mod dead {
    use super::Text;
    pub const TITLE: Text = Text("Dead letters", "Unzustellbar");
    pub const WHAT: Text = Text(
        "Nobody was told of these mails. They stay until somebody retries or drops them.",
        "Von diesen Mails hat niemand erfahren. Sie bleiben, bis jemand sie erneut sendet oder verwirft.",
    );
    pub const NONE: Text = Text(
        "None. Every mail reached somebody or was meant for nobody.",
        "Keine. Jede Mail hat jemanden erreicht oder war für niemanden bestimmt.",
    );
    pub const RETRY_ALL: Text = Text("Retry all", "Alle erneut senden");
    pub const RETRY: Text = Text("Retry", "Erneut senden");
    pub const EXPORT: Text = Text("Export .eml", ".eml exportieren");
    pub const DROP: Text = Text("Drop …", "Verwerfen …");
}

pub mod mail {
    use super::Text;
    pub const FROM: Text = Text("From", "Von");
    pub const TO: Text = Text("To", "An");
    pub const RECEIVED: Text = Text("Received", "Empfangen");
    pub const SENT_BY: Text = Text("Sent by", "Gesendet von");
    pub const UNENCRYPTED: Text = Text("unencrypted", "unverschlüsselt");
    pub const SIZE: Text = Text("Size", "Größe");
    pub const BYTES: Text = Text("bytes", "Bytes");
    pub const ID: Text = Text("Id", "Kennung");
    pub const PROBLEM: Text = Text("Problem", "Problem");
    pub const TIMELINE: Text = Text("What happened", "Was geschah");
    pub const FOR_TEAM: Text = Text("Team {}", "Team {}");
    pub const PART: Text = Text("ticket {} of this mail", "Ticket {} dieser Mail");
    pub const ACCEPTED: Text = Text("Received and stored", "Empfangen und gespeichert");
    pub const DECIDED: Text = Text("Decided:", "Entschieden:");
    pub const UNDECIDED: Text = Text("Not yet decided", "Noch nicht entschieden");
    pub const NEXT: Text = Text("Tried next", "Nächster Versuch");
    pub const ENDED: Text = Text("Ended:", "Beendet:");
    pub const TEXT: Text = Text("What the rules read", "Was die Regeln lesen");
    pub const SET_APART: Text = Text(
        "Set apart, never looked at",
        "Beiseitegelegt, nie angesehen",
    );
    pub const FIELDS: Text = Text("Fields", "Felder");
    pub const NO_FIELDS: Text = Text(
        "No field was taken from it.",
        "Es wurde kein Feld entnommen.",
    );
    pub const ALERT: Text = Text("The alert", "Der Alarm");
    pub const NO_ALERT: Text = Text(
        "None: nothing was to be sent.",
        "Keiner: Es war nichts zu senden.",
    );
    pub const TRACE: Text = Text("Why it was decided so", "Warum so entschieden wurde");
    pub const TRACE_BY: Text = Text(
        "Step by step, by the rules in force now.",
        "Schritt für Schritt, nach den jetzt gültigen Regeln.",
    );
    pub const TRACE_DIFFERS: Text = Text(
        "The rules in force now decide it differently than it was decided then.",
        "Die jetzt gültigen Regeln entscheiden anders, als damals entschieden wurde.",
    );
    pub const ORIGINAL: Text = Text("The original", "Das Original");
    pub const DOWNLOAD: Text = Text("Download .eml", ".eml herunterladen");
    pub const SHOW: Text = Text("Show its source text", "Quelltext zeigen");
    pub const CUT: Text = Text(
        "Only the beginning is shown.",
        "Nur der Anfang wird gezeigt.",
    );
    pub const RETRY: Text = Text("Retry", "Erneut senden");
    pub const REPLAY: Text = Text(
        "Replay through today's rules",
        "Mit heutigen Regeln wiederholen",
    );
    pub const SAVE_TEST: Text = Text("Save as a test", "Als Test speichern");
    pub const CHANGE_RULES: Text =
        Text("Try a change of its rules", "Änderung der Regeln erproben");
    pub const DROP: Text = Text("Drop …", "Verwerfen …");
    pub const DROP_ASK: Text = Text(
        "Nobody will be told of this mail. It stays in the ledger as a dead letter that was dropped.",
        "Von dieser Mail wird niemand erfahren. Sie bleibt als verworfene unzustellbare Mail im Hauptbuch.",
    );
    pub const DROP_DO: Text = Text("Drop it", "Verwerfen");
}

pub mod rules {
    use super::Text;
    pub const TITLE: Text = Text("Rules", "Regeln");
    pub const WHAT: Text = Text(
        "A file for each ticket system. Open one to try a change on a mail before it counts.",
        "Eine Datei je Ticketsystem. Öffnen, um eine Änderung an einer Mail zu erproben, bevor sie gilt.",
    );
    pub const HOLDS: Text = Text(
        "{} fields, {} rules, {} tests",
        "{} Felder, {} Regeln, {} Tests",
    );
    pub const OF: Text = Text("Rules of {}", "Regeln von {}");
    pub const FILE: Text = Text("The rule file", "Die Regeldatei");
    pub const MAIL: Text = Text("Try it on this mail", "An dieser Mail erproben");
    pub const NO_MAIL: Text = Text("none of these", "keine davon");
    pub const PASTE: Text = Text("Paste a mail instead", "Stattdessen eine Mail einfügen");
    pub const RAW: Text = Text(
        "The mail with its header, as in an .eml file",
        "Die Mail mit ihrem Kopf, wie in einer .eml-Datei",
    );
    pub const TRY: Text = Text("Try it", "Erproben");
    pub const DOWNLOAD: Text = Text("Download", "Herunterladen");
    pub const SAVE: Text = Text("Save and put in force", "Speichern und anwenden");
    pub const NO_SAVING: Text = Text(
        "Nothing here changes the gateway. To save from this page, set web.edit_rules = true.",
        "Nichts hier ändert das Gateway. Zum Speichern auf dieser Seite web.edit_rules = true setzen.",
    );
    pub const SAVED: Text = Text(
        "Saved, and in force for the next mail. The former version is kept.",
        "Gespeichert und ab der nächsten Mail gültig. Die vorige Fassung bleibt erhalten.",
    );
    pub const NOT_SAVED: Text = Text(
        "Not saved: the rules in force stay as they were.",
        "Nicht gespeichert: Die gültigen Regeln bleiben, wie sie waren.",
    );
    pub const FAILED: Text = Text("That did not work", "Das ging nicht");
    pub const PICK: Text = Text(
        "Pick or paste a mail to see what becomes of it.",
        "Eine Mail wählen oder einfügen, um zu sehen, was aus ihr wird.",
    );
    pub const NO_PROBLEM: Text = Text(
        "No problem, and every test passes",
        "Kein Problem, und jeder Test besteht",
    );
    pub const PROBLEMS: Text = Text("Problems in the file", "Probleme in der Datei");
    pub const LINE: Text = Text("Line {}, column {}", "Zeile {}, Spalte {}");
    pub const EXCERPT: Text = Text("The line", "Die Zeile");
    pub const STEPS: Text = Text("Step by step", "Schritt für Schritt");
}

pub mod steps {
    use super::Text;
    pub const BACK: Text = Text("Back to the mail", "Zurück zur Mail");
    pub const REPLAY: Text = Text(
        "Replay through today's rules",
        "Mit heutigen Regeln wiederholen",
    );
    pub const SAME: Text = Text(
        "Today's rules decide the same.",
        "Die heutigen Regeln entscheiden gleich.",
    );
    pub const DIFFERS: Text = Text(
        "Today's rules decide differently.",
        "Die heutigen Regeln entscheiden anders.",
    );
    pub const WHAT: Text = Text("What", "Was");
    pub const THEN: Text = Text("Then", "Damals");
    pub const TODAY: Text = Text("Today", "Heute");
    pub const CHANGED: Text = Text("(changed)", "(geändert)");
    pub const REPLAY_DO: Text = Text("Send it again", "Erneut einliefern");
    pub const REPLAY_ASK: Text = Text(
        "So far nothing was changed. Now the mail is accepted again under a new id, as if its sender had sent it again; an open ticket pages nobody twice. What of the old one has reached nobody is dropped.",
        "Bisher wurde nichts geändert. Nun wird die Mail unter neuer Kennung noch einmal angenommen, als hätte ihr Absender sie erneut gesendet; ein offenes Ticket alarmiert niemanden zweimal. Was von der alten niemanden erreicht hat, wird verworfen.",
    );
    pub const TEST: Text = Text("Save as a test", "Als Test speichern");
    pub const TEST_ASK: Text = Text(
        "The mail is put beside the rule files, and a test that wants today's decision at the end of its rule file. The former version is kept.",
        "Die Mail wird neben den Regeldateien abgelegt und ein Test, der die heutige Entscheidung verlangt, an das Ende ihrer Regeldatei geschrieben. Die vorige Fassung bleibt erhalten.",
    );
    pub const TEST_SAVED: Text = Text(
        "is saved, with the mail as {}.",
        "ist gespeichert, mit der Mail als {}.",
    );
    pub const TEST_COPY: Text = Text(
        "Put this at the end of the rule file, and the mail as {} beside it. With web.edit_rules = true the gateway does so itself.",
        "Dies an das Ende der Regeldatei setzen und die Mail als {} daneben legen. Mit web.edit_rules = true erledigt es das Gateway.",
    );
    pub const TEST_OF: Text = Text("Test of {}", "Test von {}");
}

pub mod login {
    use super::Text;
    pub const TITLE: Text = Text("Log in", "Anmelden");
    pub const PASSWORD: Text = Text("Password", "Passwort");
    pub const WRONG: Text = Text("That is not the password.", "Das ist nicht das Passwort.");
    pub const DO: Text = Text("Log in", "Anmelden");
    pub const OUT: Text = Text("Log out", "Abmelden");
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::alert::Event;
    use crate::spool::{Ending, Stage};

    #[test]
    fn every_word_of_the_spool_has_its_text() {
        let stages = Stage::UNFINISHED.map(Stage::as_str).into_iter();
        for word in stages.chain(Ending::ALL.map(Ending::as_str)) {
            assert_ne!(stage(word).0, "unknown", "{word}");
        }
        for word in Event::ALL.map(Event::as_str) {
            assert_ne!(event(word).0, "unknown", "{word}");
        }
        for word in ["delivered", "deferred", "rejected"] {
            assert_ne!(attempt(word).0, "unknown", "{word}");
        }
    }
}
