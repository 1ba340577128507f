package main

import (
	"bytes"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestExits holds the exit status and the one line of what a stranger gets
// wrong.
func TestExits(t *testing.T) {
	dir := t.TempDir()
	file := func(name, text string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		return path
	}
	good := file("good.yaml", "kafka: {brokers: ['127.0.0.1:1']}\nstate: {dir: "+dir+"/state}\nprior: {dim: 16}\nhttp: {listen: '127.0.0.1:0'}\n")
	open := file("open.yaml", "kafka: {brokers: ['127.0.0.1:1']}\nstate: {dir: "+dir+"/state}\nprior: {dim: 16}\nhttp: {listen: ':8080'}\n")
	secret := file("secret.yaml", "kafka: {brokers: ['127.0.0.1:1']}\nstate: {dir: "+dir+"/state}\nprior: {dim: 16}\nhttp: {token_file: "+dir+"/absent}\n")
	bad := file("bad.yaml", "kafka: {brokers: ['127.0.0.1:1'], partitons: 3}\nstate: {dir: x}\nprior: {dim: 16}\n")
	for _, c := range []struct {
		args string
		code int
		want string
	}{
		{"version", 0, ""},
		{"--help", 0, ""},
		{"", 0, ""},
		{"config validate -c " + good, 0, ""},
		{"prior bench --runs 1 --hidden 8 --blocks 1", 0, ""},
		{"prior bench --runs 1 --dim 64 --kind reference --tokens 8 --hidden 16 --blocks 1", 0, ""},
		{"prior bench --runs 1 -c " + good, 0, ""},
		{"prior bench --dim 0", 2, "prior.dim: 0"},
		{"prior bench --kind gpt", 2, "prior.kind"},
		{"prior bench --runs 0", 2, "--runs is 0"},
		{"prior bench --dim 16 -c " + good, 2, "--dim stands beside --config"},
		{"prior bench --provider cuda", 1, "execution provider cuda is not available"},
		{"frobnicate", 2, "frobnicate"},
		{"serve", 2, "config"},
		{"serve --nope", 2, "--nope"},
		{"serve -c " + good + " extra", 2, "extra"},
		{"serve -c " + dir + "/absent.yaml", 2, "absent.yaml"},
		{"serve -c " + bad, 2, "kafka.partitons: line 1: unknown key"},
		{"config validate -c " + bad, 2, "kafka.partitons"},
		{"config validate -c " + open, 2, "http.token"},
		{"config validate -c " + secret, 2, "http.token_file"},
		{"serve -c " + good, 1, "127.0.0.1:1"},
		{"topics create -c " + good, 1, "127.0.0.1:1"},
		{"feedback import -c " + good + " events.jsonl", 1, "127.0.0.1:1"},
		{"feedback import -c " + good, 2, "EVENTS.jsonl"},
		{"feedback import -c " + good + " --on-error ask x", 2, "--on-error"},
		{"inspect people -c " + good, 2, "people"},
		{"inspect users -c " + good, 1, dir + "/state"},
		{"sample -c " + good + " --user u --out " + dir + "/out", 1, dir + "/state"},
		{"snapshot create -c " + good, 1, dir + "/state"},
		{"prior reset -c " + good, 1, "127.0.0.1:1"},
		{"sample -c " + good + " --user u --out " + dir + " -n 0", 2, "-n"},
		{"prior import " + good, 2, "out"},
		{"prior import --out x", 2, "one state dict"},
		{"prior import " + dir + "/absent --out " + dir + "/x", 1, "absent"},
		{"prior import " + good + " --out " + dir + "/x", 1, "safetensors"},
		{"demo --preset flowers", 2, "flowers"},
		{"demo --rate 0", 2, "--rate"},
		{"demo --duration soon", 2, "soon"},
		{"demo --duration 1ms --listen=", 2, "--listen"},
		{"demo --duration 1ms --listen 127.0.0.1:0 --report " + dir + "/absent/report.json", 1, "--report"},
		{"broker", 2, "data"},
		{"broker --listen nowhere --data " + dir + "/b", 1, "nowhere"},
	} {
		var out, errs bytes.Buffer
		code := run(strings.Fields(c.args), &out, &errs)
		if code != c.code {
			t.Errorf("rebeca %s: exit %d, want %d (%s)", c.args, code, c.code, errs.String())
		}
		if text := errs.String(); !strings.Contains(text, c.want) || c.code != 0 && strings.Count(text, "\n") != 1 {
			t.Errorf("rebeca %s: says %q, want one line with %q", c.args, text, c.want)
		}
		if c.code != 0 && out.Len() > 0 {
			t.Errorf("rebeca %s: did something before it ended: %q", c.args, out.String())
		}
	}
	for _, made := range []string{"/state", "/out"} {
		if _, err := os.Stat(dir + made); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("a verb that found nothing made %s: %v", made, err)
		}
	}
}
