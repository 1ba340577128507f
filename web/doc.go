// Package web is the HTTP door of Rebeca and the gallery behind it: feedback in, images out,
// health, metrics, and one page on which a visitor watches taste being learned and lends their own.
//
// The package reads and produces; it never folds, trains or samples. Everything it needs of the
// rest of the service is declared in backend.go as a small interface, so a handler can be tested
// with a few lines of fake, and the page's own clicks travel the same topics as any other client's.
//
// A [Server] is made by [New], which does no I/O, and served by [Server.Run], which blocks. The
// routes are one table (routes.go); openapi.yaml describes them and a test holds the two together.
// Every error has one shape, {"error":{"code","message"}}, with a stable code (errors.go).
package web
