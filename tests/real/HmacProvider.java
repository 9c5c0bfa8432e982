import java.net.SocketAddress;
import java.nio.charset.StandardCharsets;
import java.security.MessageDigest;
import java.security.SecureRandom;
import javax.crypto.Mac;
import javax.crypto.spec.SecretKeySpec;
import javax.naming.AuthenticationException;
import javax.net.ssl.SSLSession;
import org.apache.pulsar.broker.ServiceConfiguration;
import org.apache.pulsar.broker.authentication.AuthenticationDataCommand;
import org.apache.pulsar.broker.authentication.AuthenticationDataSource;
import org.apache.pulsar.broker.authentication.AuthenticationProvider;
import org.apache.pulsar.broker.authentication.AuthenticationState;
import org.apache.pulsar.common.api.AuthData;

/** The broker's side of examples/challenge_response.rs, with one user. scripts/real-pulsar compiles it. */
public final class HmacProvider implements AuthenticationProvider {
    private static final String USER = "admin";
    private static final byte[] SECRET = "a shared secret".getBytes(StandardCharsets.UTF_8);

    @Override
    public void initialize(ServiceConfiguration config) {}

    @Override
    public String getAuthMethodName() {
        return "hmac-sha-256";
    }

    @Override
    public AuthenticationState newAuthState(AuthData data, SocketAddress address, SSLSession session) {
        return new Conversation();
    }

    @Override
    public void close() {}

    private static final class Conversation implements AuthenticationState {
        private String user;
        private byte[] nonce;
        private boolean isComplete;

        @Override
        public AuthData authenticate(AuthData data) throws AuthenticationException {
            if (nonce == null) {
                user = new String(data.getBytes(), StandardCharsets.UTF_8);
                nonce = new byte[16];
                new SecureRandom().nextBytes(nonce);
                return AuthData.of(nonce);
            }
            byte[] wanted = keyed(nonce);
            nonce = null;
            if (!USER.equals(user) || !MessageDigest.isEqual(wanted, data.getBytes())) {
                throw new AuthenticationException("not the answer of " + user);
            }
            isComplete = true;
            return null;
        }

        private static byte[] keyed(byte[] nonce) throws AuthenticationException {
            try {
                Mac mac = Mac.getInstance("HmacSHA256");
                mac.init(new SecretKeySpec(SECRET, "HmacSHA256"));
                return mac.doFinal(nonce);
            } catch (java.security.GeneralSecurityException error) {
                throw new AuthenticationException(error.getMessage());
            }
        }

        @Override
        public String getAuthRole() {
            return user;
        }

        @Override
        public AuthenticationDataSource getAuthDataSource() {
            return new AuthenticationDataCommand(user);
        }

        @Override
        public boolean isComplete() {
            return isComplete;
        }
    }
}
