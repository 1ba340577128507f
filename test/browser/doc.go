// Package browser drives the gallery of the demonstration in a headless Chromium, as a visitor with a mouse, a keyboard and a
// finger would, and keeps screenshots. The tests carry the build tag browser, since they need Chromium; `make test-browser` runs
// them.
package browser
