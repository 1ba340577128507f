//go:build azure

package images

import _ "gocloud.dev/blob/azureblob" // azblob://
