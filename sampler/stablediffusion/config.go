package stablediffusion

import (
	"errors"
	"fmt"
	"io/fs"
	"math"
)

// Kind is the one architecture that is read.
const Kind = "sd15-ip-adapter"

const (
	maxSide   = 2048
	maxTokens = 4096
	maxWidth  = 1 << 14 // of a token, and of channels
)

// Config is the part of a codec's manifest that describes a pipeline. Shapes are those of one row.
type Config struct {
	Kind   string `json:"kind"`
	Width  int    `json:"width"` // of the picture, in pixels
	Height int    `json:"height"`
	Latent [3]int `json:"latent"` // channels, height and width of what the U-Net walks on
	Text   [2]int `json:"text"`   // number and width of the text encoder's states
	Tokens [2]int `json:"tokens"` // number and width of the image tokens
	// Guidance is the strength w of u + w(c - u) between the noise c predicted for the embedding and u for the embedding 0; at 1 and below
	// there is no second row.
	Guidance   float64   `json:"guidance"`
	ImageScale float64   `json:"image_scale"` // of the attention to the image tokens; 1 is the adapter as it was trained
	Scheduler  Scheduler `json:"scheduler"`
	Prompt     []int     `json:"prompt,omitempty"` // the token ids of the empty prompt, for Files.TextEncoder
	Files      Files     `json:"files"`
}

// Files names the parts, slash-separated and relative to the manifest.
type Files struct {
	ImageProjection string `json:"image_projection"`
	UNet            string `json:"unet"`
	VAEDecoder      string `json:"vae_decoder"`
	// The empty prompt's states are read from TextStates, Config.Text little-endian float32 in a row, or made by TextEncoder.
	TextStates  string `json:"text_states,omitempty"`
	TextEncoder string `json:"text_encoder,omitempty"`
	// SafetyChecker withholds pictures; there is none if it is not named.
	SafetyChecker string `json:"safety_checker,omitempty"`
}

// Validate returns an error that names the field.
func (c Config) Validate() error {
	switch {
	case c.Kind != Kind:
		return fmt.Errorf("kind: %q is unknown, %s is read", c.Kind, Kind)
	case !(c.Guidance >= 0) || math.IsInf(c.Guidance, 0):
		return fmt.Errorf("guidance: %v is not 0 or more", c.Guidance)
	case !(c.ImageScale >= 0) || math.IsInf(c.ImageScale, 0):
		return fmt.Errorf("image_scale: %v is not 0 or more", c.ImageScale)
	}
	for _, n := range []struct {
		field string
		value int
		most  int
	}{
		{"width", c.Width, maxSide}, {"height", c.Height, maxSide},
		{"latent[0]", c.Latent[0], maxWidth}, {"latent[1]", c.Latent[1], maxSide}, {"latent[2]", c.Latent[2], maxSide},
		{"text[0]", c.Text[0], maxTokens}, {"text[1]", c.Text[1], maxWidth},
		{"tokens[0]", c.Tokens[0], maxTokens}, {"tokens[1]", c.Tokens[1], maxWidth},
	} {
		if n.value < 1 || n.value > n.most {
			return fmt.Errorf("%s: %d is not within 1 to %d", n.field, n.value, n.most)
		}
	}
	if c.Tokens[1] != c.Text[1] {
		return fmt.Errorf("tokens[1]: %d, and the text's states have %d", c.Tokens[1], c.Text[1])
	}
	if err := c.Scheduler.validate(); err != nil {
		return fmt.Errorf("scheduler.%w", err)
	}
	if err := c.Files.validate(); err != nil {
		return fmt.Errorf("files.%w", err)
	}
	if c.Files.TextEncoder != "" && len(c.Prompt) != c.Text[0] {
		return fmt.Errorf("prompt: %d token ids where the text encoder takes %d", len(c.Prompt), c.Text[0])
	}
	return nil
}

func (f Files) validate() error {
	if (f.TextStates == "") == (f.TextEncoder == "") {
		return errors.New("text_states, text_encoder: one of the two is needed")
	}
	for _, n := range []struct {
		field, name string
		optional    bool
	}{
		{"image_projection", f.ImageProjection, false}, {"unet", f.UNet, false}, {"vae_decoder", f.VAEDecoder, false},
		{"text_states", f.TextStates, true}, {"text_encoder", f.TextEncoder, true}, {"safety_checker", f.SafetyChecker, true},
	} {
		if n.optional && n.name == "" {
			continue
		}
		if !fs.ValidPath(n.name) || n.name == "." {
			return fmt.Errorf("%s: %q is not a relative slash-separated path", n.field, n.name)
		}
	}
	return nil
}
