package main

import (
	"bytes"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"rebeca/prior"
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
	rules := file("rules.yaml", "generate: {count: 3}\n")
	bad := file("bad.yaml", "kafka: {brokers: ['127.0.0.1:1'], partitons: 3}\nstate: {dir: x}\nprior: {dim: 16}\n")
	ratings := file("ratings.csv", "worker, imagePair, score\nA1Q,farm1_1.jpg,4\nA1Q,farm1_9.jpg,2\n")
	images := file("images.jsonl", `{"item_id":"farm1_1.jpg","embedding":[1,2]}`+"\n")
	published := writePublished(t, dir)
	for _, c := range []struct {
		args string
		code int
		want string
	}{
		{"version", 0, ""},
		{"--help", 0, ""},
		{"", 0, ""},
		{"config validate -c " + good, 0, ""},
		{"eval paper --samples 3", 2, "--samples: 3 is below 25"},
		{"eval paper --set train.luck=1", 2, "there is no \"luck\" here"},
		{"eval files --items " + images, 2, "needs --events"},
		{"eval files --items " + images + " --events " + ratings, 1, "ratings.csv: has no column event_id"},
		{"eval files --items " + ratings + " --events " + images, 1, "ratings.csv: has no column item_id"},
		{"eval files --items " + images + " --events " + images, 1, "images.jsonl: line 1: missing_field"},
		{"eval stream --together 0", 2, "--together: 0 is below 1"},
		{"eval stream --sabotage fire", 2, "--sabotage: \"fire\""},
		{"eval loop --world moon", 2, "--world"},
		{"eval loop --catalogue 2", 2, "--catalogue: 2"},
		{"eval loop --targets some", 2, "--targets: \"some\""},
		{"eval loop --rounds 0", 2, "--rounds: 0"},
		{"eval import flickr-aes " + ratings, 2, "needs --embeddings"},
		{"eval import flickr-aes " + ratings + " --embeddings " + images + " --on-error ignore", 2, "--on-error is \"ignore\", not fail or skip"},
		{"eval import flickr-aes " + ratings + " --embeddings " + images, 1, "ratings.csv: line 3: image farm1_9.jpg has no embedding (--on-error skip passes over it)"},
		{"eval import flickr-aes " + ratings + " --embeddings " + images + " --on-error skip --json --items " + dir + "/i.jsonl --events " + dir + "/e.jsonl", 0, ""},
		{"prior bench --runs 1 --hidden 8 --blocks 1", 0, ""},
		{"prior bench --runs 1 --dim 64 --kind reference --tokens 8 --hidden 16 --blocks 1", 0, ""},
		{"prior bench --runs 1 -c " + good, 0, ""},
		{"prior bench --dim 0", 2, "prior.dim: 0"},
		{"prior bench --kind gpt", 2, "prior.kind"},
		{"prior bench --runs 0", 2, "--runs is 0"},
		{"prior bench --dim 16 -c " + good, 2, "--dim stands beside --config"},
		{"prior bench --provider cuda", 1, "execution provider cuda is not available"},
		{"prior bench --runs 1 --checkpoint " + published, 0, ""},
		{"prior bench --checkpoint " + published + " -c " + good, 2, "--config stands beside --checkpoint"},
		{"prior bench --checkpoint " + published + " --dim 3", 2, "--dim stands beside --checkpoint"},
		{"prior bench --checkpoint " + good, 1, "good.yaml"},
		{"prior sample " + published + " --user 2 -n 2 --out " + dir + "/drawn", 0, ""},
		{"prior sample " + published + " --sampler ddim --steps 3 --rating dislike --out " + dir + "/drawn2", 0, ""},
		{"prior sample " + published + " --user 3 --out " + dir + "/out", 1, "user 3 of a table of 3"},
		{"prior sample " + published + " --user -2 --out " + dir + "/out", 2, "--user is -2"},
		{"prior sample " + published + " --steps 4 --out " + dir + "/out", 2, "--steps is for --sampler ddim"},
		{"prior sample " + published + " --sampler euler --out " + dir + "/out", 2, "--sampler"},
		{"prior sample " + published + " --rating 4 --out " + dir + "/out", 2, "--rating"},
		{"prior sample " + published + " --provider cuda --out " + dir + "/out", 1, "execution provider cuda is not available"},
		{"prior sample " + published + " --decoder shapes --out " + dir + "/out", 1, "the decoder reads 16 dimensions"},
		{"prior sample " + good + " --out " + dir + "/out", 1, "good.yaml"},
		{"prior sample " + published, 2, "out"},
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
		{"inspect digest -c " + good, 1, dir + "/state"},
		{"inspect digest -c " + good + " --state " + dir + "/other", 1, dir + "/other"},
		{"replay -c " + good, 2, "--from"},
		{"replay frob -c " + good, 2, "frob"},
		{"replay -c " + good + " --from earliest --to latest", 2, "--into"},
		{"replay -c " + good + " --from soon --to latest --into " + dir + "/r", 2, "--from: \"soon\" is not earliest"},
		{"replay -c " + good + " --from earliest --to 0:x --into " + dir + "/r", 2, "--to: \"0:x\""},
		{"replay -c " + good + " --from earliest --to latest --into " + dir + "/r --rules " + rules, 2, "generate: line 1: unknown key"},
		{"replay -c " + good + " --from earliest --to latest --into " + dir + "/r --rules " + dir + "/absent", 2, "--rules"},
		{"replay -c " + good + " --from earliest --to latest --into " + dir + "/r", 1, "127.0.0.1:1"},
		{"replay -c " + good + " --from earliest --to latest --into " + dir + "/r --dry-run", 1, "127.0.0.1:1"},
		{"replay diff -c " + good, 2, "--b"},
		{"replay diff -c " + good + " --b " + dir + "/r", 1, "--a: no state is there"},
		{"replay diff -c " + good + " --b " + dir + "/r --limit -1", 2, "--limit"},
		{"replay promote -c " + good, 2, "--from"},
		{"replay promote -c " + good + " --from " + dir + "/r", 1, "no state is there"},
		{"deadletter list -c " + good, 1, "127.0.0.1:1"},
		{"deadletter list -c " + good + " --reason sad", 2, "--reason: \"sad\""},
		{"deadletter list -c " + good + " --since monday", 2, "--since: \"monday\""},
		{"deadletter list -c " + good + " --limit -3", 2, "--limit"},
		{"deadletter show -c " + good, 2, "PARTITION:OFFSET"},
		{"deadletter show -c " + good + " 12", 2, "\"12\" is not PARTITION:OFFSET"},
		{"deadletter redrive -c " + good, 2, "which letters?"},
		{"deadletter redrive -c " + good + " 0:1 --all", 2, "keep one"},
		{"deadletter redrive -c " + good + " 0:x", 2, "0:x"},
		{"deadletter redrive -c " + good + " --all --on-error ask", 2, "--on-error"},
		{"deadletter redrive -c " + good + " --all --until later", 2, "--until"},
		{"deadletter redrive -c " + good + " --all", 1, "127.0.0.1:1"},
		{"prior reset -c " + good, 1, "127.0.0.1:1"},
		{"prior list -c " + good, 0, ""},
		{"prior list", 2, "config"},
		{"prior promote -c " + good, 2, "the number of one version"},
		{"prior promote -c " + good + " new", 2, "\"new\" is no number"},
		{"prior promote -c " + good + " 3 --hold -1s", 2, "--hold"},
		{"prior promote -c " + good + " 3", 1, "no checkpoint has this number: 3"},
		{"prior promote -c " + good + " 3 --dry-run", 1, "no checkpoint has this number: 3"},
		{"prior rollback -c " + good + " 3", 2, "takes no argument"},
		{"prior rollback -c " + good, 1, "no version is in use"},
		{"sample -c " + good + " --user u --out " + dir + " -n 0", 2, "-n"},
		{"forget -c " + good, 2, "--user"},
		{"forget -c " + good + " --user=", 2, "no user can have this id"},
		{"forget -c " + good + " --user u", 1, "127.0.0.1:1"},
		{"forget -c " + good + " --user u --dry-run --json", 0, ""},
		{"erase -c " + good, 1, dir + "/state"},
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
	for _, made := range []string{"/state", "/out", "/r", "/other"} {
		if _, err := os.Stat(dir + made); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("a verb that found nothing made %s: %v", made, err)
		}
	}
}

// writePublished makes a small checkpoint of the published kind, with 3 users.
func writePublished(t *testing.T, dir string) string {
	t.Helper()
	cfg := prior.DefaultConfig(8)
	cfg.Kind, cfg.Hidden, cfg.Blocks, cfg.Heads, cfg.Tokens, cfg.Users, cfg.Timesteps = "reference", 8, 1, 2, 2, 3, 20
	state, err := prior.NewState(cfg, prior.Stats{Mean: make([]float32, 8), Scale: slices.Repeat([]float32{1}, 8)}, 1)
	if err != nil {
		t.Fatal(err)
	}
	for i := range state.EMA { // a new prior predicts the mean, whoever asks
		state.EMA[i] += float32(i%7-3) / 20
	}
	path := filepath.Join(dir, "published.safetensors")
	if _, err := state.Save(path); err != nil {
		t.Fatal(err)
	}
	return path
}

// TestPriorSample draws twice from a checkpoint: the same seed gives the same
// lines, another user, rating, guidance or sampler others.
func TestPriorSample(t *testing.T) {
	dir := t.TempDir()
	published := writePublished(t, dir)
	draw := func(flags string) string {
		t.Helper()
		out := filepath.Join(dir, "out")
		var said bytes.Buffer
		if code := run(strings.Fields("prior sample "+published+" -n 3 --out "+out+" "+flags), &said, &said); code != 0 {
			t.Fatalf("%s: exit %d: %s", flags, code, said.String())
		}
		lines, err := os.ReadFile(filepath.Join(out, "samples.jsonl"))
		if err != nil {
			t.Fatal(err)
		}
		if n := strings.Count(string(lines), "\n"); n != 3 {
			t.Errorf("%s: %d lines, want 3", flags, n)
		}
		return string(lines)
	}
	base := draw("--user 0")
	if again := draw("--user 0 --guidance 5 --rating like --sampler ddpm --seed 1"); again != base {
		t.Errorf("the defaults spelt out give\n%swant\n%s", again, base)
	}
	for _, flags := range []string{"", "--user 1", "--user 0 --rating dislike", "--user 0 --guidance 1", "--user 0 --sampler ddim", "--user 0 --seed 2"} {
		if draw(flags) == base {
			t.Errorf("%q gives what --user 0 gives", flags)
		}
	}
}
