package lakehouse;

import io.delta.storage.S3SingleDriverLogStore;
import java.io.ByteArrayOutputStream;
import java.io.FileNotFoundException;
import java.io.IOException;
import java.nio.charset.StandardCharsets;
import java.nio.file.FileAlreadyExistsException;
import java.util.Arrays;
import java.util.Iterator;
import org.apache.hadoop.conf.Configuration;
import org.apache.hadoop.fs.FSDataInputStream;
import org.apache.hadoop.fs.FSDataOutputStream;
import org.apache.hadoop.fs.FSDataOutputStreamBuilder;
import org.apache.hadoop.fs.FileSystem;
import org.apache.hadoop.fs.Options.CreateFileOptionKeys;
import org.apache.hadoop.fs.Path;
import org.apache.hadoop.fs.s3a.AWSServiceIOException;

/**
 * Commits to S3 with a conditional put, so that of any number of drivers one alone lands a version.
 *
 * <p>The store decides, not a look beforehand: the object is created only if there is none.
 */
public final class ConditionalPutLogStore extends S3SingleDriverLogStore {
  private static final int ATTEMPTS = 5;
  private static final long PAUSE_MILLIS = 100;
  private static final int CONFLICT = 409;

  public ConditionalPutLogStore(Configuration hadoopConf) {
    super(hadoopConf);
  }

  @Override
  public void write(Path path, Iterator<String> actions, Boolean overwrite, Configuration hadoopConf)
      throws IOException {
    if (overwrite) {
      super.write(path, actions, true, hadoopConf);
      return;
    }
    FileSystem fs = path.getFileSystem(hadoopConf);
    byte[] commit = bytes(actions);
    for (int attempt = 1; !landed(fs, path, commit, attempt == ATTEMPTS); attempt++) {
      pause(attempt);
    }
  }

  /** Puts the commit; false where the store was busy with another put of this version and asks to try again. */
  private static boolean landed(FileSystem fs, Path path, byte[] commit, boolean last) throws IOException {
    try {
      put(fs, path, commit);
      return true;
    } catch (IOException error) {
      // The answer to a put that landed may be lost, and its repetition refused: what is there tells whose it is.
      byte[] there = read(fs, path, error);
      if (there == null && !last && isConflict(error)) {
        return false;
      }
      if (there == null) {
        throw error;
      }
      if (!Arrays.equals(there, commit)) {
        throw new FileAlreadyExistsException(path.toString());
      }
      return true;
    }
  }

  private static void put(FileSystem fs, Path path, byte[] commit) throws IOException {
    FSDataOutputStreamBuilder<?, ?> builder = fs.createFile(path);
    builder.must(CreateFileOptionKeys.FS_OPTION_CREATE_CONDITIONAL_OVERWRITE, true);
    FSDataOutputStream out = builder.build();
    try {
      out.write(commit);
    } catch (IOException error) {
      // Closing it would put half a commit.
      out.abort();
      throw error;
    }
    out.close();
  }

  /** Returns the object's bytes; null if there is none, or if it cannot be read either. */
  private static byte[] read(FileSystem fs, Path path, IOException put) {
    try (FSDataInputStream in = fs.open(path)) {
      return in.readAllBytes();
    } catch (FileNotFoundException absent) {
      return null;
    } catch (IOException error) {
      put.addSuppressed(error);
      return null;
    }
  }

  private static boolean isConflict(IOException error) {
    return error instanceof AWSServiceIOException && ((AWSServiceIOException) error).statusCode() == CONFLICT;
  }

  private static void pause(int attempt) throws IOException {
    try {
      Thread.sleep(PAUSE_MILLIS * attempt);
    } catch (InterruptedException error) {
      Thread.currentThread().interrupt();
      throw new IOException("interrupted while committing", error);
    }
  }

  private static byte[] bytes(Iterator<String> actions) {
    ByteArrayOutputStream lines = new ByteArrayOutputStream();
    while (actions.hasNext()) {
      lines.writeBytes((actions.next() + "\n").getBytes(StandardCharsets.UTF_8));
    }
    return lines.toByteArray();
  }
}
