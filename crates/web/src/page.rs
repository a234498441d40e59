//! The status page.

/// The figures on the status page.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Status {
    /// Packets captured or received.
    pub packets: u64,
    /// Packets dropped by the kernel or the interface.
    pub dropped: u64,
    /// Packets dropped by the relay, or lost between relay and collector.
    pub lost: u64,
    /// How often a kernel capture buffer was full.
    pub queue_freezes: u64,
}

/// The status page, at `/`.
pub struct Page {
    mode: &'static str,
    status: Box<dyn Fn() -> Status + Send + Sync>,
}

impl Page {
    /// The page of a program in `mode`. `status` returns the current figures.
    pub fn new(mode: &'static str, status: impl Fn() -> Status + Send + Sync + 'static) -> Self {
        Self { mode, status: Box::new(status) }
    }

    /// The page with the current figures.
    pub(crate) fn html(&self) -> String {
        let Status { packets, dropped, lost, queue_freezes } = (self.status)();
        // Nothing here comes from outside, so nothing needs escaping.
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
<p><code>pcktr</code> {version}, mode <code>{mode}</code></p>
<table>
<tr><td>Packets</td><td>{packets}</td></tr>
<tr><td>Dropped by kernel or interface</td><td>{dropped}</td></tr>
<tr><td>Dropped by the relay or lost in transit</td><td>{lost}</td></tr>
<tr><td>Queue freezes</td><td>{queue_freezes}</td></tr>
</table>
<p><a href="/metrics">Metrics</a>, <a href="/-/healthy">health</a>, <a href="/-/ready">readiness</a></p>
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
    fn page_shows_the_figures() {
        let status = Status { packets: 1_234_567, dropped: 89, lost: 10, queue_freezes: 3 };
        let html = Page::new("collect", move || status).html();
        for part in [
            "mode <code>collect</code>",
            "<td>Packets</td><td>1234567</td>",
            "<td>Dropped by kernel or interface</td><td>89</td>",
            "<td>Dropped by the relay or lost in transit</td><td>10</td>",
            "<td>Queue freezes</td><td>3</td>",
            "href=\"/metrics\"",
        ] {
            assert!(html.contains(part), "{part} in {html}");
        }
    }
}
