// Package rebeca composes the service: it reads feedback from Kafka, folds it
// into the table of users, keeps learning the prior while it runs and
// publishes generated embeddings and images.
//
//	items ─────────────┐                                      (compacted: item id → embedding)
//	feedback ──► worker, one per partition ──► generated      images + embeddings, key = user
//	requests ──►  fold → embed → sample       └► vectors       compacted: user → embedding
//	                 ▲   Badger: windows, embeddings, outbox   └► deadletter
//	                 │ newest weights
//	feedback, items ──► trainer (one): fold → step ──► prior   compacted: announced versions
//
// Every box is a package of its own: consumer speaks Kafka, table holds the
// users, prior is the model, online trains it, sampler draws from it, web is
// the HTTP door and the gallery. This package only joins them: the worker
// (worker.go) folds, the generator (generate.go) turns intents into published
// records, the follower (follow.go) loads announced weights, the learner
// (learn.go) feeds the trainer, and Service (service.go) starts and stops
// them in order. Demo (demo.go) adds an embedded broker and a controlled
// world of simulated people.
package rebeca
