//! The agent: the same login, decided in another process, which alone reads the records.
//!
//! The module asks and shows; pam-totp-agent decides. Between the two are two short exchanges over a unix socket, each a
//! connection of its own: `begin` brings what to show and to ask, and `answer` the verdict, or the next question. What the
//! agent has to know in between the module keeps for it, sealed. So nothing waits in the agent while a person types.
//!
//! | | |
//! |---|---|
//! | [`wire`] | what is said, byte by byte |
//! | [`wish`] | what somebody can have done about their own devices, and what that brings |
//! | [`client`] | the module's side |
//! | `server` | the agent's side: whom it believes what, and the library's own [`crate::authenticate`] |

pub mod client;
#[cfg(feature = "agent")]
pub mod server;
pub mod wire;
pub mod wish;
