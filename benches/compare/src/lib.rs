//! Farshore beside others that do the same. The program measures; what it measures over is [`link`], a line between two
//! network namespaces that delays, paces and can be cut.

pub mod link;
