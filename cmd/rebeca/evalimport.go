package main

import (
	"encoding/json"
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	"rebeca/dataset"
)

// evalImport makes files for eval stream of data sets in their own form.
func evalImport() *cobra.Command {
	return group("import", "Make items and events of a data set in its own form", evalImportFlickrAES())
}

func evalImportFlickrAES() *cobra.Command {
	cmd := &cobra.Command{
		Use: "flickr-aes RATINGS.csv", Short: "Make items and events of the ratings of FLICKR-AES and embeddings of its images",
		Args: exactly(1, "one file, FLICKR-AES_image_labeled_by_each_worker.csv"),
		Long: `Make items and events of FLICKR-AES (Ren et al., ICCV 2017): the CSV file of the
workers' ratings, with the columns worker, imagePair and score, and embeddings
of the images from any encoder. A rating stays a rating of 1 to 5; 4 and more
counts as a like, see feedback.classes. The ratings have no times: they become
one stream in an order drawn by --seed.`,
	}
	var f dataset.FlickrAES
	flags := cmd.Flags()
	flags.StringVar(&f.Embeddings, "embeddings", "", "items file (.jsonl, .csv, .parquet) with the images' names as item_id, or a NumPy matrix (.npy)")
	flags.StringVar(&f.Names, "names", "", "names of the rows of a NumPy matrix, one a line")
	flags.StringVar(&f.Items, "items", "items.jsonl", "file for the items")
	flags.StringVar(&f.Events, "events", "events.jsonl", "file for the events")
	flags.Uint64Var(&f.Seed, "seed", 1, "seed of the order")
	onError := flags.String("on-error", "fail", "what a bad line, or a rating of an image without embedding, does: fail or skip")
	asJSON := flags.Bool("json", false, "print the result as JSON")
	require(cmd, "embeddings")
	cmd.RunE = func(cmd *cobra.Command, args []string) (err error) {
		f.Ratings = args[0]
		if f.Skip, err = skips(*onError); err != nil {
			return err
		}
		stderr := cmd.ErrOrStderr()
		f.OnBad = func(err error) { fmt.Fprintln(stderr, err) }
		res, err := f.Run()
		var row *dataset.RowError
		if errors.As(err, &row) {
			return fmt.Errorf("%w (--on-error skip passes over it)", err)
		}
		if err != nil {
			return err
		}
		if *asJSON {
			return json.NewEncoder(cmd.OutOrStdout()).Encode(res)
		}
		_, err = fmt.Fprintf(cmd.OutOrStdout(), "%d items of %d dimensions in %s, %d events of %d users in %s, %d bad lines skipped\n",
			res.Items, res.Dim, f.Items, res.Events, res.Users, f.Events, res.Bad)
		return err
	}
	return cmd
}

// skips reads --on-error.
func skips(onError string) (bool, error) {
	if onError != "fail" && onError != "skip" {
		return false, usageError{fmt.Errorf("--on-error is %q, not fail or skip", onError)}
	}
	return onError == "skip", nil
}
