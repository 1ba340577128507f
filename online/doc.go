// Package online is the trainer: it learns the prior while the stream runs and
// is the only writer of weights.
//
// A [Trainer] is fed the events of `feedback` in offset order ([Trainer.Push]),
// after the table has folded them. Every 64 of them make a round of two
// optimizer steps over contexts and targets that it draws from the table: the
// newest part of each batch is the round's own events, the rest is replay from
// the windows of random users. The table is the replay buffer; the trainer
// keeps no data of its own but the held-out events it scores versions with.
//
// Weights leave as versions: a checkpoint that is durable in a directory and
// then announced. A checkpoint carries the offsets of all events that its
// steps have consumed, so a restart goes on from there ([Trainer.Open]).
//
// The recipe and its measured reasons are in DESIGN.md beside this file.
package online
