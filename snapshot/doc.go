// Package snapshot writes one consistent cut of a running service to a directory and brings it back.
//
// A snapshot holds every key of the table as of one read timestamp (facts, embeddings, catalogue, offsets, intents,
// outbox, generated memory), a copy of a prior checkpoint that has seen nothing the cut has not, and a readable table of
// users. Tables are Arrow IPC files; manifest.json is written last and carries the size, row count and SHA-256 of every
// file. FORMAT.md describes the bytes, DESIGN.md the reasons.
//
//	m, err := snapshot.Create(ctx, "/backups", source, snapshot.Options{})
//	m, err = snapshot.Verify(ctx, filepath.Join("/backups", m.Name), snapshot.Options{})
//	m, err = snapshot.Restore(ctx, filepath.Join("/backups", m.Name), stateDir, priorDir, load, snapshot.Options{})
//
// The package reads a Source and fills a Load, both declared here; nothing in it knows how the table keeps its keys.
package snapshot
