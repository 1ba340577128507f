//go:build gcs

package images

import _ "gocloud.dev/blob/gcsblob" // gs://
