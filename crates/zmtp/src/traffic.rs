//! Commands after the handshake.

use crate::Error;
use crate::command::Command;
use crate::curve::{Channel, MESSAGE_OVERHEAD};
use crate::frame::FrameHeader;

/// The longest context of a PING in bytes (RFC 37, "Heartbeating"): it comes back in the PONG.
const MAX_CONTEXT: usize = 16;

/// Bytes to send above which further PINGs are not answered: their sender does not read.
const MAX_PENDING: usize = 1024;

/// Answers a PING, and ignores a PONG.
///
/// # Errors
/// It is another command.
pub(crate) fn answer(
    command: Command<'_>,
    channel: Option<&mut Channel>,
    out: &mut Vec<u8>,
) -> Result<(), Error> {
    match command.name {
        b"PONG" => Ok(()),
        b"PING" => {
            // After a time to live of two bytes.
            let context = command.body.get(2..).ok_or_else(|| command.invalid())?;
            if context.len() > MAX_CONTEXT {
                return Err(command.invalid());
            }
            if out.len() >= MAX_PENDING {
                return Ok(());
            }
            let pong = Command { name: b"PONG", body: context };
            let Some(channel) = channel else {
                pong.encode_frame(out);
                return Ok(());
            };
            let mut frame = vec![0; MESSAGE_OVERHEAD];
            pong.encode(&mut frame);
            channel.seal(&mut frame, true)?;
            FrameHeader { command: false, len: frame.len() }.encode(out);
            out.append(&mut frame);
            Ok(())
        }
        _ => Err(command.invalid()),
    }
}
