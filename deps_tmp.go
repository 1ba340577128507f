package rebeca

import (
	_ "github.com/apache/arrow/go/v17/arrow/ipc"
	_ "github.com/chromedp/chromedp"
	_ "github.com/dgraph-io/badger/v4"
	_ "github.com/prometheus/client_golang/prometheus/promhttp"
	_ "github.com/schollz/progressbar/v3"
	_ "github.com/segmentio/kafka-go"
	_ "github.com/spf13/cobra"
	_ "github.com/twmb/franz-go/pkg/kfake"
	_ "github.com/twmb/franz-go/pkg/kgo"
	_ "github.com/yalue/onnxruntime_go"
	_ "go.uber.org/goleak"
	_ "go.yaml.in/yaml/v3"
	_ "golang.org/x/sync/errgroup"
	_ "golang.org/x/term"
	_ "gonum.org/v1/gonum/floats"
	_ "gonum.org/v1/gonum/stat"
	_ "google.golang.org/protobuf/encoding/protowire"
	_ "pgregory.net/rapid"
	_ "golang.org/x/image/vector"
	_ "github.com/santhosh-tekuri/jsonschema/v6"
)
