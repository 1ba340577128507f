// Package table is the table of users: what each person did, folded from the log, on Badger.
//
// It owns three kinds of state. Facts (rows, interned item ids, forget marks) are a pure function of the feedback topic. The catalogue is a
// copy of the items topic, also kept in memory. Outputs are what is still to be made (intents), still to be sent (the outbox) and
// what was made (vectors and generated memory). One transaction moves facts, offsets, intents and dead letters together, so a crash
// leaves them as if the batch had been folded or had never come.
//
// The writers of one partition (Fold, Accept, List, Complete, Trim) are serialised by the table; readers run beside them and see
// committed state. DESIGN.md holds the keys, the encodings and the reasons.
package table
