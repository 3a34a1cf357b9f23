//! A record of what each device holds, written before and after every effect.
