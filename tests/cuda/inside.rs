//! A device in the process that supervises.
