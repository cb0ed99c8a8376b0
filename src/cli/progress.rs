//! How far long work is: a bar on stderr, only when a person sees it there and stdout goes elsewhere.

use std::io::IsTerminal;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

/// For `length` steps. Drawn over the data if both went to one terminal, so it is hidden then.
pub(super) fn bar(length: usize, what: &'static str) -> ProgressBar {
    let bar = match std::io::stdout().is_terminal() {
        true => ProgressBar::hidden(),
        // Hides itself where stderr is no terminal.
        false => ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr()),
    };
    bar.set_length(length as u64);
    styled(bar, "{msg} {wide_bar} {pos}/{len} {eta}", what)
}

/// For work whose steps are not known. Prints nothing else until it is dropped.
pub(super) fn spinner(what: &'static str) -> ProgressBar {
    let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr());
    let bar = styled(bar, "{spinner} {msg} {elapsed}", what);
    bar.enable_steady_tick(std::time::Duration::from_millis(100));
    bar
}

fn styled(bar: ProgressBar, template: &str, what: &'static str) -> ProgressBar {
    // The templates are ours; a wrong one leaves the plain bar.
    if let Ok(style) = ProgressStyle::with_template(template) {
        bar.set_style(style);
    }
    bar.with_message(what)
}
