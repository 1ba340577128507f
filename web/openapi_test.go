package web

import (
	"bytes"
	"encoding/json"
	"mime"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/santhosh-tekuri/jsonschema/v6"
	"go.yaml.in/yaml/v3"
)

// description is openapi.yaml as far as the tests read it.
type description struct {
	Paths map[string]map[string]any `yaml:"paths"`
	whole any                       // as JSON decodes it
}

var described = sync.OnceValue(func() description {
	var d description
	var tree any
	if err := yaml.Unmarshal(openAPI, &d); err != nil {
		panic("web: openapi.yaml: " + err.Error())
	}
	if err := yaml.Unmarshal(openAPI, &tree); err != nil {
		panic("web: openapi.yaml: " + err.Error())
	}
	text, err := json.Marshal(tree)
	if err != nil {
		panic("web: openapi.yaml has no JSON form: " + err.Error())
	}
	if d.whole, err = jsonschema.UnmarshalJSON(bytes.NewReader(text)); err != nil {
		panic("web: openapi.yaml: " + err.Error())
	}
	return d
})

// at follows keys from the root, through references.
func (d description) at(keys ...string) (node any, pointer string) {
	node, pointer = d.whole, ""
	for _, key := range keys {
		fields, ok := node.(map[string]any)
		if !ok {
			return nil, ""
		}
		node, pointer = fields[key], pointer+"/"+strings.NewReplacer("~", "~0", "/", "~1").Replace(key)
		if ref, ok := node.(map[string]any); ok {
			if target, ok := ref["$ref"].(string); ok {
				node, pointer = d.at(strings.Split(strings.TrimPrefix(target, "#/"), "/")...)
			}
		}
	}
	return node, pointer
}

// holdAgainstOpenAPI fails where an answer is not described: its status, its media type or its body.
// Paths that do not exist are described by nothing; their answers must still be the one error shape.
func holdAgainstOpenAPI(t *testing.T, method, path string, a answer) {
	t.Helper()
	d := described()
	media, _, err := mime.ParseMediaType(a.header.Get("Content-Type"))
	if err != nil {
		t.Fatalf("%s %s: content type %q: %v", method, path, a.header.Get("Content-Type"), err)
	}
	pattern := d.match(path)
	_, known := d.Paths[pattern][strings.ToLower(method)]
	if !known || a.code == 403 { // 403 is answered before any route is looked at
		validate(t, "/components/schemas/ErrorAnswer", a.body)
		return
	}
	response, _ := d.at("paths", pattern, strings.ToLower(method), "responses", strconv.Itoa(a.code))
	if response == nil && a.code == 500 {
		validate(t, "/components/schemas/ErrorAnswer", a.body) // any route may meet a fault
		return
	}
	content, at := d.at("paths", pattern, strings.ToLower(method), "responses", strconv.Itoa(a.code), "content")
	types, ok := content.(map[string]any)
	if !ok {
		t.Fatalf("%s %s answers %d, which openapi.yaml does not describe: %s", method, path, a.code, a.body)
	}
	if types[media] == nil && types["*/*"] == nil {
		t.Fatalf("%s %s answers %d in %q, which openapi.yaml does not describe", method, path, a.code, media)
	}
	if media == "application/json" {
		validate(t, at+"/application~1json/schema", a.body)
	}
}

// match finds the path of the description, exact ones first.
func (d description) match(path string) string {
	if _, ok := d.Paths[path]; ok {
		return path
	}
	for pattern := range d.Paths {
		if regexp.MustCompile("^" + regexp.MustCompile(`\\\{\w+\\\}`).ReplaceAllString(regexp.QuoteMeta(pattern), "[^/]+") + "$").MatchString(path) {
			return pattern
		}
	}
	return ""
}

func validate(t *testing.T, pointer string, body []byte) {
	t.Helper()
	c := jsonschema.NewCompiler()
	c.AssertFormat()
	if err := c.AddResource("mem:///openapi.json", described().whole); err != nil {
		t.Fatal(err)
	}
	schema, err := c.Compile("mem:///openapi.json#" + pointer)
	if err != nil {
		t.Fatal(err)
	}
	value, err := jsonschema.UnmarshalJSON(bytes.NewReader(body))
	if err != nil {
		t.Fatalf("body is not JSON: %v: %s", err, body)
	}
	if err := schema.Validate(value); err != nil {
		t.Fatalf("openapi.yaml%s: %v\n%s", pointer, err, body)
	}
}

// TestOpenAPIListsTheRoutes holds the table of routes and the file against each other, both ways.
func TestOpenAPIListsTheRoutes(t *testing.T) {
	var served, written []string
	for _, r := range New(newFake().options()).routes() {
		served = append(served, r.method+" "+strings.TrimSuffix(r.pattern, "{$}"))
	}
	for path, item := range described().Paths {
		for method := range item {
			if method != "parameters" {
				written = append(written, strings.ToUpper(method)+" "+path)
			}
		}
	}
	slices.Sort(served)
	slices.Sort(written)
	if !slices.Equal(served, written) {
		t.Errorf("served: %q\nwritten: %q", served, written)
	}
}

// TestOpenAPINeedsTheTokenWhereTheDoorDoes compares `security: [{}]` with the routes that are public.
func TestOpenAPINeedsTheTokenWhereTheDoorDoes(t *testing.T) {
	for _, r := range New(newFake().options()).routes() {
		path := strings.TrimSuffix(r.pattern, "{$}")
		security, _ := described().at("paths", path, strings.ToLower(r.method), "security")
		unauthorized, _ := described().at("paths", path, strings.ToLower(r.method), "responses", "401")
		if free := security != nil; free != r.public {
			t.Errorf("%s %s: public is %v, openapi.yaml says %v", r.method, path, r.public, free)
		}
		if (unauthorized == nil) != r.public {
			t.Errorf("%s %s: public is %v, 401 described: %v", r.method, path, r.public, unauthorized != nil)
		}
	}
}

// TestOpenAPIIsSound compiles every schema, so that a reference to nothing is found.
func TestOpenAPIIsSound(t *testing.T) {
	schemas, _ := described().at("components", "schemas")
	for name := range schemas.(map[string]any) {
		c := jsonschema.NewCompiler()
		if err := c.AddResource("mem:///openapi.json", described().whole); err != nil {
			t.Fatal(err)
		}
		if _, err := c.Compile("mem:///openapi.json#/components/schemas/" + name); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestOpenAPINamesEveryCode holds the list of codes in the file against the constants.
func TestOpenAPINamesEveryCode(t *testing.T) {
	node, _ := described().at("components", "schemas", "Error", "properties", "code", "description")
	for _, c := range []Code{
		CodeBadRequest, CodeUnauthorized, CodeForbidden, CodeNotFound, CodeUnknownUser, CodeMethodNotAllowed, CodeTooLarge,
		CodeNotOwner, CodeNoPrior, CodeNoDecoder, CodeBadAfter, CodeBrokerUnavailable, CodeBusy, CodeNotReady,
		CodeAfterTimeout, CodeGenerateTimeout, CodeBucket, CodeInternal,
	} {
		if !strings.Contains(node.(string), string(c)) {
			t.Errorf("openapi.yaml does not name %s", c)
		}
	}
}
