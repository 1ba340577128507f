package main

import (
	"encoding/json"
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	"rebeca"
	"rebeca/images"
	"rebeca/internal/meter"
)

func feedbackCommand() *cobra.Command {
	return group("feedback", "Work with the feedback topic", importCommand("EVENTS.jsonl", "Send a history of feedback to its topic",
		func(c rebeca.Config) (string, func([]byte) ([]byte, error)) {
			return c.Kafka.Topics.Feedback, rebeca.FeedbackLine
		}))
}

func itemsCommand() *cobra.Command {
	lines := importCommand("ITEMS.jsonl", "Send a catalogue of embeddings to its topic",
		func(c rebeca.Config) (string, func([]byte) ([]byte, error)) {
			return c.Kafka.Topics.Items, rebeca.ItemLine(c.Prior.Dim)
		})
	return group("items", "Work with the catalogue's topic", importPictures(lines))
}

// importPictures gives the import of a catalogue a second source: pictures and
// an encoder.
func importPictures(cmd *cobra.Command) *cobra.Command {
	var o pictureFlags
	cmd.Use += " | --images DIR|CSV --encoder MANIFEST"
	cmd.Long = cmd.Short + `.

With --images it makes the embeddings itself, of the PNG, JPEG and WebP files of a folder and those below it (an item's id is the file's path
within), or of those that a CSV file names (columns item_id and path, and uri if wanted). It sends what has not been sent before, or has changed.`
	cmd.Flags().StringVar(&o.images, "images", "", "folder of pictures, or CSV file that names them")
	cmd.Flags().StringVar(&o.encoder, "encoder", "", "manifest of the encoder, or shapes")
	cmd.Flags().IntVar(&o.pixels, "max-pixels", images.DefaultLimits().Pixels, "pixels of the largest picture that is read")
	lines, oneFile := cmd.RunE, cmd.Args
	cmd.Args = func(cmd *cobra.Command, args []string) error {
		if o.images == "" && o.encoder == "" {
			return oneFile(cmd, args)
		}
		if o.images == "" || o.encoder == "" || len(args) > 0 {
			return errors.New("--images and --encoder go together, without a file")
		}
		return nil
	}
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if o.images == "" {
			return lines(cmd, args)
		}
		return o.run(cmd)
	}
	return cmd
}

type pictureFlags struct {
	images, encoder string
	pixels          int
}

func (o pictureFlags) run(cmd *cobra.Command) error {
	flag := func(name string) string { return cmd.Flags().Lookup(name).Value.String() }
	skip, err := skips(flag("on-error"))
	if err != nil {
		return err
	}
	c, client, err := dial(cmd, flag("config"))
	if err != nil {
		return err
	}
	defer client.Close()
	if err := c.OpenRuntime(); err != nil {
		return err
	}
	encoder, identity, err := c.OpenEncoder(o.encoder)
	if err != nil {
		return err
	}
	defer encoder.Close()
	stderr := cmd.ErrOrStderr()
	var m *meter.Meter
	limits := images.DefaultLimits()
	limits.Pixels = o.pixels
	im := rebeca.ImageImport{
		Client: client, Topic: c.Kafka.Topics.Items, Partitions: c.Kafka.Partitions, Encoder: encoder, Identity: identity, StateDir: c.State.Dir,
		Limits: limits, Skip: skip,
		OnBad: func(file string, err error) { fmt.Fprintf(stderr, "%s: %v\n", file, err) },
		Progress: func(done, total int64) {
			if m == nil {
				m = meter.New(stderr, "pictures", total)
			}
			m.Set(done)
		},
	}
	res, err := im.Run(cmd.Context(), o.images)
	if err != nil {
		return err
	}
	m.Done()
	if flag("json") == "true" {
		return json.NewEncoder(cmd.OutOrStdout()).Encode(res)
	}
	_, err = fmt.Fprintf(cmd.OutOrStdout(), "%d items sent to %s, %d were there before, %d bad pictures skipped\n",
		res.Produced, c.Kafka.Topics.Items, res.Before, res.Bad)
	return err
}

// importCommand makes an import verb; target gives the topic and the parser
// of a line.
func importCommand(file, short string, target func(rebeca.Config) (string, func([]byte) ([]byte, error))) *cobra.Command {
	cmd := &cobra.Command{
		Use: "import " + file, Short: short + ", one JSON object a line; goes on where it was interrupted",
		Args: exactly(1, "one file, "+file),
	}
	path := configFlag(cmd)
	onError := cmd.Flags().String("on-error", "fail", "what a bad line does: fail or skip")
	asJSON := cmd.Flags().Bool("json", false, "print the result as JSON")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		skip, err := skips(*onError)
		if err != nil {
			return err
		}
		c, client, err := dial(cmd, *path)
		if err != nil {
			return err
		}
		defer client.Close()
		topic, parse := target(c)
		stderr := cmd.ErrOrStderr()
		var m *meter.Meter
		im := rebeca.Import{
			Client: client, Topic: topic, Partitions: c.Kafka.Partitions, Parse: parse, StateDir: c.State.Dir,
			Skip:  skip,
			OnBad: func(line int, err error) { fmt.Fprintf(stderr, "%s: line %d: %v\n", args[0], line, err) },
			Progress: func(done, total int64) {
				if m == nil {
					m = meter.New(stderr, "bytes sent", total)
				}
				m.Set(done)
			},
		}
		res, err := im.Run(cmd.Context(), args[0])
		if err != nil {
			return err
		}
		if m != nil {
			m.Done()
		}
		if *asJSON {
			return json.NewEncoder(cmd.OutOrStdout()).Encode(res)
		}
		note := ""
		if res.Changed {
			note = " (all of the file: what an earlier import sent of it has changed)"
		}
		_, err = fmt.Fprintf(cmd.OutOrStdout(), "%d records sent to %s, %d bad lines skipped%s\n", res.Produced, topic, res.Bad, note)
		return err
	}
	return cmd
}
