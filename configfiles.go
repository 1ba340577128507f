package rebeca

import (
	"errors"
	"fmt"
	"os"
	"strings"
)

// CheckFiles reports the files that the configuration names and that cannot be
// used: secrets, decoder and native library, joined, each with its path.
func (c Config) CheckFiles() error {
	_, err := c.httpToken()
	errs := []error{err}
	if s := c.Kafka.SASL; s.Mechanism != "" {
		_, err := firstLine("kafka.sasl.password_file", s.PasswordFile)
		errs = append(errs, err)
	}
	_, err = c.newRegistry(nil)
	errs = append(errs, err)
	there := func(path, file string) {
		if _, err := os.Stat(file); err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", path, err))
		}
	}
	if m := c.Decoder.Manifest; m != "none" && m != "shapes" {
		there("decoder.manifest", m)
	}
	if l := c.ONNXRuntime.Library; l != "" {
		there("onnxruntime.library", l)
	}
	return errors.Join(errs...)
}

// httpToken returns the token, from the file when one is named.
func (c Config) httpToken() (string, error) {
	if c.HTTP.TokenFile == "" {
		return c.HTTP.Token, nil
	}
	return firstLine("http.token_file", c.HTTP.TokenFile)
}

// firstLine reads a secret's file.
func firstLine(path, file string) (string, error) {
	b, err := os.ReadFile(file)
	if err != nil {
		return "", fmt.Errorf("%s: %w", path, err)
	}
	line, _, _ := strings.Cut(string(b), "\n")
	if line = strings.TrimSpace(line); line == "" {
		return "", fmt.Errorf("%s: the first line of %s is empty", path, file)
	}
	return line, nil
}
