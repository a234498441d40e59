//! The page that a person sees who opens the metrics' address.

use std::sync::Arc;

use crate::settings::Mode;

/// The figures that tell at a glance whether all is well.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Figures {
    /// Packets seen so far.
    pub(crate) packets: u64,
    /// Packets dropped so far, wherever.
    pub(crate) dropped: u64,
    /// How often a kernel's queue was full.
    pub(crate) queue_freezes: u64,
}

/// The landing page.
#[derive(Clone)]
pub(crate) struct Page {
    /// What the program is here to do.
    pub(crate) mode: Mode,
    /// The figures as they are now.
    pub(crate) figures: Arc<dyn Fn() -> Figures + Send + Sync>,
}

impl Page {
    /// The page as it is now.
    pub(super) fn html(&self) -> String {
        let Figures { packets, dropped, queue_freezes } = (self.figures)();
        // Nothing of it comes from outside: there is nothing to escape.
        format!(
            r#"<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<title>Packeteur</title>
<style>
body {{ font-family: sans-serif; margin: 2em; }}
td {{ padding-right: 2em; }}
td + td {{ text-align: right; font-variant-numeric: tabular-nums; }}
</style>
</head>
<body>
<h1>Packeteur</h1>
<p>Packets of many machines, seen from one place. This is <code>pcktr</code> {version}, mode <code>{mode}</code>.</p>
<table>
<tr><td>Packets</td><td>{packets}</td></tr>
<tr><td>Dropped</td><td>{dropped}</td></tr>
<tr><td>Queue freezes</td><td>{queue_freezes}</td></tr>
</table>
<p><a href="/metrics">Metrics</a>, <a href="/-/healthy">healthy</a>, <a href="/-/ready">ready</a></p>
</body>
</html>
"#,
            version = env!("CARGO_PKG_VERSION"),
            mode = self.mode,
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_has_the_figures() {
        let figures = Figures { packets: 1_234_567, dropped: 89, queue_freezes: 3 };
        let html = Page { mode: Mode::Collect, figures: Arc::new(move || figures) }.html();
        for part in [
            "mode <code>collect</code>",
            "<td>1234567</td>",
            "<td>89</td>",
            "<td>3</td>",
            "href=\"/metrics\"",
        ] {
            assert!(html.contains(part), "{part} in {html}");
        }
    }
}
